"""From the table of a GGUF file to the tokenizer files of a model folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer as Backend

from ownlm.model.gguf.splits import pre_tokenizer_of, split_named
from ownlm.model.gguf.tokens import BYTE_LEVEL, TokenTable
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

_PADDING = re.compile(r"\[PAD\d+\]")
_KEYS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def write_tokenizer(folder: Path, table: TokenTable, context: int, where: str) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` with the chat template.

    Raises:
        OwnLMError: a way to split text that is not known here, or a vocabulary that fits no tokenizer.
    """
    data = _specification(table, where)
    try:
        Backend.from_str(json.dumps(data))
    except Exception as error:  # the library raises bare Exceptions
        raise OwnLMError(f"{where} holds a tokenizer that cannot be rebuilt ({error}).") from None
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    named = _named(table)
    config |= {key: table.texts[named[role]] if role in named else None for role, key in _KEYS.items()}
    config |= {"clean_up_tokenization_spaces": False, "model_max_length": context}
    if table.template is not None:
        config["chat_template"] = table.template
    atomic.write_json(folder / "tokenizer.json", data)
    atomic.write_json(folder / "tokenizer_config.json", config)


def token_ids(table: TokenTable) -> dict[str, Any]:
    """`bos_token_id`, `eos_token_id` (one or several) and `pad_token_id`, as configs of models have them."""
    named = _named(table)
    ends = list(dict.fromkeys(named[role] for role in ("eos", "eot", "eom") if role in named))
    return {
        "bos_token_id": named.get("bos"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": named.get("padding"),
    }


def _named(table: TokenTable) -> dict[str, int]:
    """The roles, without a beginning that only stands in for a missing one."""
    named = dict(table.named)
    if not table.add_begin and named.get("bos") in (named.get("eos"), named.get("padding")):
        named.pop("bos", None)
    return named


def _specification(table: TokenTable, where: str) -> dict[str, Any]:
    padding = {i for i in table.ids(TokenType.UNUSED) if _PADDING.fullmatch(table.texts[i])}
    vocabulary = {text: i for i, text in enumerate(table.texts) if i not in padding}
    if len(vocabulary) != len(table.texts) - len(padding):
        raise OwnLMError(f"{where} has several tokens of one text.")
    special = set(table.ids(TokenType.CONTROL, TokenType.UNKNOWN))
    added = sorted(special | set(table.ids(TokenType.USER_DEFINED)))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": table.texts[i], **_FLAGS, "special": i in special} for i in added],
        **(_byte_level if table.model == BYTE_LEVEL else _pieces)(table, vocabulary, where),
        "post_processor": _post_processor(table),
    }


def _byte_level(table: TokenTable, vocabulary: dict[str, int], where: str) -> dict[str, Any]:
    split = split_named(table.pre)
    if split is None:
        raise OwnLMError(f"{where} splits text in the way {table.pre!r} of llama.cpp, which is not known here.")
    merges = [list(parts) for parts in (_pair(merge) for merge in table.merges) if all(p in vocabulary for p in parts)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_of(split),
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": split.ignore_merges, "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _pieces(table: TokenTable, vocabulary: dict[str, int], _: str) -> dict[str, Any]:
    """SentencePiece's BPE: every pair of tokens that makes a token is a merge, the better scored the earlier."""
    plain = {table.texts[i] for i in table.ids(TokenType.NORMAL)}
    merges: list[tuple[float, int, int, str, str]] = []
    for text in plain:
        score = table.scores[vocabulary[text]]
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in plain and right in plain:
                merges.append((-score, vocabulary[text], vocabulary[left], left, right))
    unknown = table.named.get("unknown")
    steps = [{"type": "Prepend", "prepend": "▁"}] * table.add_space
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})  # type: ignore[dict-item]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    if table.add_space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None if unknown is None else table.texts[unknown],
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False, "vocab": vocabulary,
            "merges": [[left, right] for *_, left, right in sorted(merges)],
        },
    }  # fmt: skip


def _post_processor(table: TokenTable) -> dict[str, Any] | None:
    before = ["bos"] if table.add_begin and "bos" in table.named else []
    after = ["eos"] if table.add_end and "eos" in table.named else []
    if not before and not after:
        return None
    tokens = {table.texts[table.named[role]]: table.named[role] for role in (*before, *after)}
    text: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]

    def special(roles: list[str]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": table.texts[table.named[role]], "type_id": 0}} for role in roles]

    single = special(before) + text + special(after)
    second = [{"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + special(before) + second + special(after),
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in tokens.items()},
    }
