"""The characters by which byte-level tokenizers write bytes in JSON (Radford et al. 2019, GPT-2's encoder)."""

from __future__ import annotations


def _alphabet() -> dict[int, str]:
    """Printable Latin-1 bytes stand for themselves; the others for characters from U+0100 on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


BYTE_TO_CHARACTER = _alphabet()
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}


def to_characters(data: bytes) -> str:
    """Bytes as they are written in a `tokenizer.json`."""
    return "".join(BYTE_TO_CHARACTER[byte] for byte in data)


def to_bytes(text: str) -> bytes:
    """The reverse of `to_characters`.

    Raises:
        KeyError: a character outside the alphabet.
    """
    return bytes(CHARACTER_TO_BYTE[character] for character in text)
