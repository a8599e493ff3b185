"""What stands beside a `tokenizer.json`: named tokens, added tokens, ids that end an answer, chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ownlm.runtime.errors import OwnLMError

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja",
)  # fmt: skip
"""The files of a tokenizer, beside `additional_chat_templates/*.jinja`."""
TEMPLATES = "additional_chat_templates"
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|eot|>", "<turn|>")
"""Tokens that end a message and nothing else."""
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>")
"""Tokens that separate documents."""
_END = "<|endoftext|>"
_DEFAULTS = {
    "gpt2": {"bos_token": _END, "eos_token": _END, "unk_token": _END},
    "gpt_neox": {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|padding|>"},
    "qwen2": {"eos_token": _END, "unk_token": _END, "pad_token": _END},
}
"""What the classes of `transformers` take for tokens that a config does not name."""
PICTURES = ("image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token", "video_token")
"""Names of tokens that stand for pictures and sounds."""


@dataclass(frozen=True)
class TokenizerConfig:
    """What `tokenizer_config.json` and its older companions say."""

    named: dict[str, str]
    """`bos_token`, `eos_token`, ... and a model's own names, such as `image_token`, to tokens.

    Defaults among them may name what the vocabulary lacks.
    """
    listed: tuple[AddedToken, ...]
    """Tokens with their flags, in the order of their ids; one that differs from the vocabulary's replaces it."""
    missing: tuple[AddedToken, ...]
    """Tokens that are added to the vocabulary, in this order, where it lacks them."""
    clean_up: bool
    """Whether spaces before punctuation are taken out of decoded text."""
    add_begin: bool | None
    add_end: bool | None


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is no such file.

    Raises:
        OwnLMError: the file cannot be read or holds something else.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OwnLMError(f"{path} cannot be read: {error}.") from None
    if not isinstance(data, dict):
        raise OwnLMError(f"{path} must hold a JSON object.")
    return data


def read_config(folder: Path) -> TokenizerConfig:
    """Reads `tokenizer_config.json`; where it lists no added tokens, its older companions too.

    Raises:
        OwnLMError: a file is no JSON object, or a token is neither a string nor an object with `content`.
    """
    path = folder / "tokenizer_config.json"
    data = read_json(path)
    listed = data.get("added_tokens_decoder")
    try:
        if listed is None:
            data |= read_json(folder / "special_tokens_map.json")
        extra = data.get("extra_special_tokens") or data.get("additional_special_tokens") or ()
        named = {key: data[key] for key in (*NAMES, *data) if key.endswith("_token") and _is_token(data.get(key))}
        if isinstance(extra, Mapping):
            named, extra = named | dict(extra), ()
        numbered = sorted((listed or {}).items(), key=lambda item: int(item[0]))
        missing = [_added(token, special=True) for token in (*named.values(), *extra)]
        if listed is None:
            special = {token.content for token in missing}
            older = sorted(read_json(folder / "added_tokens.json").items(), key=lambda item: int(item[1]))
            missing[:0] = [
                AddedToken(text, normalized=text not in special, special=text in special) for text, _ in older
            ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OwnLMError(f"{path} names its tokens in a way that cannot be read here ({error!r}).") from None
    return TokenizerConfig(
        named=_defaults(folder, data) | {key: _content(token) for key, token in named.items()},
        listed=tuple(_added(entry, special=bool(entry.get("special"))) for _, entry in numbered),
        missing=tuple(missing),
        clean_up=bool(data.get("clean_up_tokenization_spaces")),
        add_begin=_flag(data, "add_bos_token"),
        add_end=_flag(data, "add_eos_token"),
    )


def ending_ids(folder: Path) -> list[int]:
    """The `eos_token_id` of `generation_config.json` and `config.json`, one id or a list of them each."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        data = read_json(folder / name)
        value = data.get("eos_token_id")
        if value is None and isinstance(data.get("text_config"), dict):
            value = data["text_config"].get("eos_token_id")
        found += _integers(value, folder / name)
    return found


def read_templates(folder: Path) -> dict[str, str]:
    """The chat templates of a folder by name, "default" among them; empty where there is none.

    Files (`chat_template.jinja`, `additional_chat_templates/*.jinja`) win over what the config holds: a string, or a
    list of `{"name", "template"}`.

    Raises:
        OwnLMError: the config's `chat_template` is something else.
    """
    found = {path.stem: path.read_text("utf-8") for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    path = folder / "chat_template.jinja"
    if path.is_file():
        found["default"] = path.read_text("utf-8")
    if found:
        return found
    path = folder / "tokenizer_config.json"
    match read_json(path).get("chat_template"):
        case None:
            return {}
        case str(template):
            return {"default": template}
        case list(entries) if all(isinstance(entry, dict) for entry in entries):
            named = {str(entry.get("name")): entry.get("template") for entry in entries}
            if all(isinstance(template, str) for template in named.values()):
                return {name: str(template) for name, template in named.items()}
    raise OwnLMError(f'{path}: chat_template must be a string, or a list of {{"name": ..., "template": ...}}.')


def read_files(folder: Path) -> dict[str, bytes]:
    """The bytes of the tokenizer's files by their path inside the folder."""
    paths = [*(folder / name for name in FILES), *sorted((folder / TEMPLATES).glob("*.jinja"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def first_of(names: Iterable[str], ids: Mapping[str, int]) -> int | None:
    """The id of the first of these tokens that there is."""
    return next((ids[name] for name in names if name in ids), None)


def _defaults(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """By the tokenizer's class, or where none is named by the model's type."""
    named = str(config.get("tokenizer_class") or read_json(folder / "config.json").get("model_type"))
    kind = {"GPT2": "gpt2", "GPTNeoX": "gpt_neox", "Qwen2": "qwen2"}.get(named.split("Tokenizer")[0], named)
    return {key: token for key, token in _DEFAULTS.get(kind, {}).items() if key not in config}


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _content(token: Any) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _added(token: Any, special: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=special)
    flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in token}
    return AddedToken(str(token["content"]), special=special, **flags)


def _flag(data: dict[str, Any], key: str) -> bool | None:
    value = data.get(key)
    return value if isinstance(value, bool) else None


def _integers(value: Any, path: Path) -> list[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in values):
        raise OwnLMError(f"{path}: eos_token_id={value!r} must be an id or a list of ids.")
    return values
