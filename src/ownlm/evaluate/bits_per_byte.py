"""Bits per byte on held-out documents: the one number that compares models with any tokenizer, and compressors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ownlm.data.document import Document
from ownlm.engine.request import TextScore
from ownlm.evaluate.ngram import NgramModel
from ownlm.score.intervals import Interval, bootstrap_ratio


class Scoring(Protocol):
    """What `bits_per_byte` needs of a model: `LanguageModel` has it, and so has `NgramScorer`."""

    def score(self, texts: Sequence[str]) -> list[TextScore]: ...


class Encoding(Protocol):
    """What is needed of a tokenizer."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class NgramScorer:
    """An n-gram model that scores texts, as a `LanguageModel` does."""

    model: NgramModel
    tokenizer: Encoding

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """One `TextScore` a text, its first token conditioned on the start of a document."""
        return [
            TextScore(tuple(ids), tuple(self.model.log_probs(ids).tolist()), len(text.encode("utf-8")))
            for text, ids in zip(texts, self.tokenizer.encode_batch(list(texts)), strict=True)
        ]


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte over all documents and by kind; the interval resamples whole documents.

    `bits` and `sizes` hold one entry a document, for paired comparisons between models.
    """

    total: Interval
    by_kind: dict[str, Interval]
    bytes: int
    bits: tuple[float, ...]
    sizes: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Without the entries of single documents."""
        by_kind = {kind: interval.to_json() for kind, interval in self.by_kind.items()}
        return {**self.total.to_json(), "bytes": self.bytes, "by_kind": by_kind}


def bits_per_byte(model: Scoring, documents: Sequence[Document], seed: int = 0, batch: int = 16) -> BitsPerByte:
    """Scores whole documents and divides the bits by the UTF-8 bytes.

    Args:
        model: anything with `score`; it decides how texts longer than its context are windowed.
        documents: held-out ones; empty documents are left out.
        seed: of the bootstrap.
        batch: documents a call of `score`.

    Raises:
        ValueError: there is no text, or the model gave a number that is not finite.
    """
    documents = [document for document in documents if document.text]
    bits: list[float] = []
    for texts in _batches([document.text for document in documents], batch):
        bits.extend(-sum(score.token_logprobs) / math.log(2) for score in model.score(texts))
    if not documents or not np.isfinite(bits).all():
        raise ValueError("bits per byte needs at least one document with text, and finite log-probabilities")
    sizes = [document.bytes for document in documents]
    kinds = sorted({document.kind for document in documents})
    by_kind = {}
    for kind in kinds:
        chosen = [at for at, document in enumerate(documents) if document.kind == kind]
        by_kind[kind] = bootstrap_ratio([bits[at] for at in chosen], [sizes[at] for at in chosen], seed)
    return BitsPerByte(bootstrap_ratio(bits, sizes, seed), by_kind, sum(sizes), tuple(bits), tuple(sizes))


def difference(model: BitsPerByte, other: BitsPerByte, seed: int = 0) -> Interval:
    """Bits per byte of `model` minus those of `other` on the same documents (below zero: `model` is better).

    Raises:
        ValueError: they were measured on different documents.
    """
    if model.sizes != other.sizes:
        raise ValueError("the two were not measured on the same documents")
    return bootstrap_ratio(np.subtract(model.bits, other.bits), model.sizes, seed)


def _batches(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
