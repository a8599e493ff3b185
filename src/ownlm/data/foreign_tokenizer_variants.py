"""A `tokenizer.json` changed for texts that stand in the middle of others, or that must not give special tokens."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator
from typing import Any

from ownlm.data.tokenizer_protocol import Position

Specification = dict[str, Any]
"""The object of a `tokenizer.json`."""


def unprefixed(data: Specification, position: Position) -> Specification:
    """Without the space that is put before a text's first word, as far as it does not belong at this position.

    A Prepend normalizer and the Metaspace scheme "always" put one behind each special token too, the scheme "first"
    only at the beginning of all.
    """
    if position == "start":
        return data
    changed = {**data, "pre_tokenizer": copy.deepcopy(data.get("pre_tokenizer"))}
    for step in _steps(changed["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace" and (position == "inside" or step.get("prepend_scheme") == "first"):
            step["prepend_scheme"] = "never"
        if step["type"] == "ByteLevel" and position == "inside":
            step["add_prefix_space"] = False
    if position == "inside":
        kept = [step for step in _steps(data.get("normalizer"), "normalizers") if step["type"] != "Prepend"]
        if len(kept) != len(list(_steps(data.get("normalizer"), "normalizers"))):
            changed["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return changed


def guarded(data: Specification, hidden: frozenset[int]) -> tuple[Specification, str]:
    """With names that no text can have for the tokens `hidden`: the second value and the token's id.

    Other tokens keep their names, but not always their ids.
    """
    model = dict(data["model"])
    stand_in = secrets.token_hex(16)
    if isinstance(model["vocab"], list):
        model["vocab"] = [
            [f"{stand_in}{identifier}" if identifier in hidden else token, score]
            for identifier, (token, score) in enumerate(model["vocab"])
        ]
    else:
        names = {
            token: f"{stand_in}{identifier}" for token, identifier in model["vocab"].items() if identifier in hidden
        }
        model["vocab"] = {names.get(token, token): identifier for token, identifier in model["vocab"].items()}
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if names.keys().isdisjoint((*pair, "".join(pair)))]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
    added = [token for token in data["added_tokens"] if token["id"] not in hidden]
    return {**data, "model": model, "added_tokens": added, "post_processor": None}, stand_in


def _steps(part: dict[str, Any] | None, key: str) -> Iterator[dict[str, Any]]:
    """The parts of a Sequence (and of those inside it), or the only one."""
    if part is None:
        return
    if part["type"] != "Sequence":
        yield part
        return
    for step in part[key]:
        yield from _steps(step, key)
