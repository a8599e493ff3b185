"""Preference pairs: for one prompt an answer that was preferred and one that was not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.align.packing import Encoded
from ownlm.data.chat_format import ChatFormat
from ownlm.data.message import Message
from ownlm.data.tokenizer import Tokenizer
from ownlm.runtime.errors import OwnLMError


@dataclass(frozen=True)
class PreferencePair:
    """`meta` says where the verdict came from (a verifier's failed checks, a person's session, ...)."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    meta: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One line of a `pairs.jsonl`."""
        prompt = [message.to_json() for message in self.prompt]
        return {"prompt": prompt, "chosen": self.chosen, "rejected": self.rejected, **self.meta}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PreferencePair:
        """The reverse of `to_json`.

        Raises:
            ValueError: a missing field, an empty answer, or two answers that are equal.
        """
        rest = dict(data)
        prompt, chosen, rejected = (rest.pop(name, None) for name in ("prompt", "chosen", "rejected"))
        messages = isinstance(prompt, list) and all(isinstance(message, dict) for message in prompt)
        if not messages or not isinstance(chosen, str) or not isinstance(rejected, str):
            raise ValueError("a pair needs prompt (a list of messages), chosen and rejected (strings)")
        if not prompt:
            raise ValueError("the prompt is empty")
        if not chosen.strip() or not rejected.strip():
            raise ValueError("an answer is empty")
        if chosen == rejected:
            raise ValueError("both answers are the same")
        return cls(tuple(Message.from_json(message) for message in prompt), chosen, rejected, rest)


def read_pairs(path: Path) -> list[PreferencePair]:
    """The pairs of a JSON-lines file.

    Raises:
        OwnLMError: the file is absent or empty, or a line is no pair (its number is named).
    """
    try:
        # Not splitlines: JSON may hold U+2028 and its like inside a string.
        lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise OwnLMError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise OwnLMError(f"{path} is not UTF-8 text (byte {error.start}).") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ValueError("a pair is a JSON object")
            pairs.append(PreferencePair.from_json(data))
        except (ValueError, AttributeError, RecursionError) as error:
            raise OwnLMError(f"{path}, line {number}: {error}.") from None
    if not pairs:
        raise OwnLMError(f"{path} holds no preference pair.")
    return pairs


@dataclass(frozen=True)
class EncodedPair:
    """Both answers with their prompt, as tokens with the answers' tokens marked."""

    chosen: Encoded
    rejected: Encoded


def encode_pairs(
    pairs: Sequence[PreferencePair], tokenizer: Tokenizer, chat: ChatFormat, longest: int
) -> tuple[list[EncodedPair], int]:
    """The pairs as tokens, and how many were left out because an answer with its prompt exceeds `longest` tokens."""
    encoded, left_out = [], 0
    for pair in pairs:
        sides = [
            Encoded(*chat.encode(tokenizer, [*pair.prompt, Message.of("assistant", text)]))
            for text in (pair.chosen, pair.rejected)
        ]
        if max(len(side.ids) for side in sides) > longest:
            left_out += 1
        else:
            encoded.append(EncodedPair(*sides))
    return encoded, left_out
