"""How byte-level tokenizers split text before merging, and llama.cpp's names for the ways that it knows.

llama.cpp has the expressions built in, by name (`tokenizer.ggml.pre`); see `llm_tokenizer_bpe` in
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp. Only ways that are the same to the letter are
here: a tokenizer that splits otherwise is refused, since the model would read other tokens than it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ownlm.data.tokenizer import SPLIT

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the ByteLevel step does by itself."""
LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{{0}}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{{0}}"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = _CASES.replace("{0}", "") + rf"|\p{{N}}|{_SLASHED}"
GPT4O = _CASES.replace("{0}", _CONTRACTIONS + "?") + rf"|\p{{N}}{{1,3}}|{_SLASHED}"


@dataclass(frozen=True)
class Split:
    """`pattern` None: GPT-2's own expression, which the ByteLevel step brings; `digits`: every digit stands alone.

    `ignore_merges`: a piece that is a token as a whole is that token, whatever the merges say.
    """

    pattern: str | None
    digits: bool = False
    ignore_merges: bool = False


NAMES: dict[Split, str] = {
    Split(SPLIT): "qwen2",
    Split(LLAMA3, ignore_merges=True): "llama-bpe",
    Split(LLAMA3): "smaug-bpe",
    Split(None): "gpt-2",
    Split(None, digits=True): "smollm",
    Split(QWEN35): "qwen35",
    Split(TEKKEN, ignore_merges=True): "tekken",
    Split(GPT4O): "gpt-4o",
}
"""The first name is written; the others below are read as well."""
ALIASES = {
    "deepseek-r1-qwen": "qwen2", "stablelm2": "qwen2", "megrez": "qwen2", "hunyuan": "qwen2", "grok-2": "qwen2",
    "solar-open": "qwen2", "kormo": "qwen2", "f2llmv2": "qwen2",
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "falcon-h1": "llama-bpe",
    "pixtral": "llama-bpe", "midm-2.0": "llama-bpe", "lfm2": "llama-bpe",
    "dbrx": "smaug-bpe", "chatglm-bpe": "smaug-bpe", "glm4": "smaug-bpe",
    "phi-2": "gpt-2", "olmo": "gpt-2", "mpt": "gpt-2", "modern-bert": "gpt-2", "jais": "gpt-2", "exaone4": "gpt-2",
    "starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "codeshell": "smollm", "exaone": "smollm",
    "llama4": "gpt-4o",
}  # fmt: skip


def split_of(data: dict[str, Any]) -> Split | None:
    """The way in which a byte-level `tokenizer.json` splits, or None where it is none of this kind."""
    ignore = bool(data["model"].get("ignore_merges"))
    first = data.get("pre_tokenizer") or {}
    steps = first["pretokenizers"] if first.get("type") == "Sequence" else [first]
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    own = bool(last.get("use_regex", True))
    match [(each.get("type"), own) for each in before]:
        case [] if own:
            return Split(None, ignore_merges=ignore)
        case [("Digits", True)] if before[0].get("individual_digits"):
            return Split(None, digits=True, ignore_merges=ignore)
        case [("Split", False)] if before[0].get("behavior") == "Isolated" and not before[0].get("invert"):
            pattern = before[0]["pattern"].get("Regex")
            return Split(None if pattern == GPT2 else pattern, ignore_merges=ignore)
    return None


def pre_tokenizer_of(split: Split) -> dict[str, Any]:
    """The reverse of `split_of`: the `pre_tokenizer` of a `tokenizer.json`."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    if split.pattern is not None:
        byte_level["use_regex"] = False
        pattern = {"type": "Split", "pattern": {"Regex": split.pattern}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [pattern, byte_level]}
    if split.digits:
        return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]}
    return byte_level


def split_named(name: str) -> Split | None:
    """The way that llama.cpp's name stands for, or None."""
    wanted = ALIASES.get(name, name)
    return next((split for split, each in NAMES.items() if each == wanted), None)
