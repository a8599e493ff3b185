"""SentencePiece's `tokenizer.model` as a `tokenizer.json` (Kudo and Richardson 2018).

The file is a protocol buffer (`sentencepiece_model.proto`); the few fields that matter are read here.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.runtime.errors import OwnLMError

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MARK = "▁"
"""What a space becomes."""


@dataclass(frozen=True)
class Piece:
    """A token."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `tokenizer.model` says; the defaults are the format's."""

    pieces: tuple[Piece, ...]
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    suffix: bool = False
    """Spaces are marked at the end of a word."""
    bos_id: int = 1
    eos_id: int = 2
    characters: bytes = b""
    """The normalisation table (`precompiled_charsmap`)."""
    dummy_prefix: bool = True
    """A space is put before the text."""
    squeeze: bool = True
    """Spaces at both ends and repeated ones are taken out."""
    escape: bool = True
    """Spaces are marked with ▁."""


def parse(data: bytes, path: Path) -> SentencePieceModel:
    """Reads the protocol buffer.

    Raises:
        OwnLMError: it is something else.
    """
    try:
        fields = list(_fields(data))
        trainer = dict(_fields(b"".join(value for number, value in fields if number == 2)))
        normalizer = dict(_fields(b"".join(value for number, value in fields if number == 3)))
        pieces = tuple(_piece(value) for number, value in fields if number == 1)
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise OwnLMError(f"{path} is no SentencePiece model ({error!r}).") from None
    if not pieces or not {2, 3} <= {number for number, _ in fields}:
        raise OwnLMError(f"{path} is no SentencePiece model, or cut short: its pieces or its settings are missing.")
    return SentencePieceModel(
        pieces,
        model_type=trainer.get(3, UNIGRAM),
        byte_fallback=bool(trainer.get(35, False)),
        suffix=bool(trainer.get(24, False)),
        bos_id=_signed(trainer.get(41, 1)),
        eos_id=_signed(trainer.get(42, 2)),
        characters=normalizer.get(2, b""),
        dummy_prefix=bool(normalizer.get(3, True)),
        squeeze=bool(normalizer.get(4, True)),
        escape=bool(normalizer.get(5, True)),
    )


def convert(data: bytes, path: Path, *, add_begin: bool | None = None, add_end: bool | None = None) -> dict[str, Any]:
    """The object of a `tokenizer.json` that encodes and decodes as SentencePiece does.

    The beginning-of-text token is put before a text if `add_begin` says so, or if nothing is said and there is one.

    Raises:
        OwnLMError: the file is no SentencePiece model, or one of words or characters.
    """
    model = parse(data, path)
    if model.model_type not in (UNIGRAM, BPE):
        raise OwnLMError(f"{path}: model_type={model.model_type}; only unigram (1) and BPE (2) can be read here.")
    if model.suffix or not model.escape:
        raise OwnLMError(f"{path} marks spaces at the end of words, or not at all, which cannot be read here.")
    unknown = next((index for index, piece in enumerate(model.pieces) if piece.kind == UNKNOWN), None)
    if unknown is None:
        raise OwnLMError(f"{path} has no unknown token.")
    begin = model.bos_id if add_begin is not False and 0 <= model.bos_id < len(model.pieces) else -1
    end = model.eos_id if add_end and 0 <= model.eos_id < len(model.pieces) else -1
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index, "content": piece.text, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": piece.kind != USER_DEFINED,
            }
            for index, piece in enumerate(model.pieces)
            if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(model)},
        "pre_tokenizer": None,
        "post_processor": _post_processor(model, begin, end),
        "decoder": {"type": "Sequence", "decoders": _decoders(model)},
        "model": _unigram(model, unknown) if model.model_type == UNIGRAM else _bpe(model, unknown),
    }  # fmt: skip


def _unigram(model: SentencePieceModel, unknown: int) -> dict[str, Any]:
    vocabulary = [[piece.text, piece.score] for piece in model.pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": model.byte_fallback}


def _bpe(model: SentencePieceModel, unknown: int) -> dict[str, Any]:
    """SentencePiece joins the two neighbours whose piece has the highest score: that order is the order of merges."""
    ids = {piece.text: index for index, piece in enumerate(model.pieces)}
    parts = {piece.text for piece in model.pieces if piece.kind == NORMAL}
    ranked = sorted((-piece.score, index) for index, piece in enumerate(model.pieces) if piece.kind == NORMAL)
    merges = []
    for _, index in ranked:
        text = model.pieces[index].text
        pairs = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [pair for pair in pairs if pair[0] in parts and pair[1] in parts]
        merges += [list(pair) for pair in sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    return {
        "type": "BPE", "dropout": None, "unk_token": model.pieces[unknown].text, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": model.byte_fallback, "ignore_merges": False,
        "vocab": ids, "merges": merges,
    }  # fmt: skip


def _normalizers(model: SentencePieceModel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if model.characters:
        table = base64.b64encode(model.characters).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if model.squeeze:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": MARK})
    return [*steps, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]


def _decoders(model: SentencePieceModel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}]
    if model.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if model.dummy_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return steps


def _post_processor(model: SentencePieceModel, begin: int, end: int) -> dict[str, Any] | None:
    if begin < 0 and end < 0:
        return None

    def special(index: int, sequence: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": model.pieces[index].text, "type_id": sequence}}] if index >= 0 else []

    def around(name: str, sequence: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": name, "type_id": sequence}}
        return [*special(begin, sequence), text, *special(end, sequence)]

    tokens = {
        model.pieces[index].text: {"id": model.pieces[index].text, "ids": [index], "tokens": [model.pieces[index].text]}
        for index in (begin, end)
        if index >= 0
    }
    single, pair = around("A", 0), [*around("A", 0), *around("B", 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


# ---- protocol buffers


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value): an int, four or eight bytes, or bytes of any length."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(data):
            raise ValueError("cut short")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number without end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    (score,) = struct.unpack("<f", fields.get(2, b"\0\0\0\0"))
    return Piece(fields[1].decode("utf-8"), score, fields.get(3, NORMAL))
