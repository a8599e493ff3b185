"""Tokens to bytes and text as the `decoder` of a `tokenizer.json` says, one token at a time.

The rules are those of the `tokenizers` library: whatever the stream of tokens, its pieces joined are what the library's
`decode` makes of all of them at once.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ownlm.data.byte_alphabet import CHARACTER_TO_BYTE, to_bytes

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class DecoderRules:
    """What a decoder does to tokens."""

    byte_level: bool = False
    """Tokens are written in GPT-2's byte alphabet."""
    replacements: tuple[tuple[str, str], ...] = ()
    """In each token, what stands left becomes what stands right."""
    byte_fallback: bool = False
    """`<0xE2>` is a byte; bytes in a row that are no UTF-8 together become one U+FFFD each."""
    leading_space: int = 0
    """So many spaces at the beginning of a text are left away."""
    bare_first: str = ""
    """In the first token this character is left away (the Metaspace decoder)."""

    def piece(self, token: str) -> tuple[bytes, bool]:
        """The bytes of a token, and whether it is a byte token of the fallback."""
        if self.byte_level:
            return (to_bytes(token) if all(c in CHARACTER_TO_BYTE for c in token) else token.encode()), False
        for old, new in self.replacements:
            token = token.replace(old, new)
        match = _BYTE_TOKEN.fullmatch(token) if self.byte_fallback else None
        return (bytes([int(match[1], 16)]), True) if match else (token.encode(), False)


def read_rules(decoder: dict[str, Any] | None) -> DecoderRules | None:
    """The rules of a `decoder` entry; None where text cannot be made token by token after them."""
    if decoder is None:
        return None
    steps: list[dict[str, Any]] = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return DecoderRules(byte_level=True)
    if kinds == ["Metaspace"]:
        mark = str(steps[0].get("replacement", "▁"))
        # Older files say `add_prefix_space` instead of a scheme.
        scheme = steps[0].get("prepend_scheme", "always" if steps[0].get("add_prefix_space", True) else "never")
        return DecoderRules(replacements=((mark, " "),), bare_first="" if scheme == "never" else mark)
    replacements = []
    while steps and steps[0]["type"] == "Replace" and "String" in steps[0]["pattern"]:
        replacements.append((str(steps[0]["pattern"]["String"]), str(steps[0]["content"])))
        steps = steps[1:]
    byte_fallback = bool(steps) and steps[0]["type"] == "ByteFallback"
    steps = steps[1:] if byte_fallback else steps
    fused = bool(steps) and steps[0]["type"] == "Fuse"
    steps = steps[1:] if fused else steps
    match steps:
        case []:
            return DecoderRules(replacements=tuple(replacements), byte_fallback=byte_fallback)
        case [{"type": "Strip", "content": " ", "start": int(start), "stop": 0}] if fused:
            return DecoderRules(replacements=tuple(replacements), byte_fallback=byte_fallback, leading_space=start)
        case _:
            return None


class Utf8Decoder:
    """Bytes held back until they complete a character (byte-level tokenizers, ours among them)."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, identifier: int) -> str:
        """See `TokenDecoder.add`."""
        return self._decoder.decode(self._bytes(identifier))

    def finish(self) -> str:
        """See `TokenDecoder.finish`."""
        return self._decoder.decode(b"", final=True)


class PieceDecoder:
    """SentencePiece's tokens: words with a mark for the space, and bytes where there is no word.

    A run of byte tokens is held back until another token ends it, because one wrong byte in it changes all of it.
    """

    def __init__(self, rules: DecoderRules, token: Callable[[int], str | None], continues: bool) -> None:
        self._rules, self._token = rules, token
        self._spaces = 0 if continues else rules.leading_space
        self._bare = "" if continues else rules.bare_first
        self._run = bytearray()

    def add(self, identifier: int) -> str:
        """See `TokenDecoder.add`."""
        token = self._token(identifier)
        if token is None:
            return ""
        if self._bare:
            token, self._bare = token.replace(self._bare, ""), ""
        data, lone = self._rules.piece(token)
        if lone:
            self._run += data
            return ""
        return self._stripped(self._flush() + data.decode())

    def finish(self) -> str:
        """See `TokenDecoder.finish`."""
        return self._stripped(self._flush())

    def _flush(self) -> str:
        run, self._run = bytes(self._run), bytearray()
        try:
            return run.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _stripped(self, text: str) -> str:
        while text and self._spaces:
            if text[0] != " ":
                self._spaces = 0
                break
            text, self._spaces = text[1:], self._spaces - 1
        return text


class WholeDecoder:
    """For rules that need the whole answer: nothing is given out before its end."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []

    def add(self, identifier: int) -> str:
        """See `TokenDecoder.add`."""
        self._ids.append(identifier)
        return ""

    def finish(self) -> str:
        """See `TokenDecoder.finish`."""
        ids, self._ids = self._ids, []
        return self._decode(ids)


_CLEANED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


def cleaned(text: str) -> str:
    """Without the spaces before punctuation (`clean_up_tokenization_spaces`)."""
    for old, new in _CLEANED:
        text = text.replace(old, new)
    return text
