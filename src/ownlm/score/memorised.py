"""Does an answer copy a long span of the training text? Asked of millions of spans with one sorted array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ownlm.runtime.counter_random import mix

Hashes = npt.NDArray[np.uint64]

SPAN = 50
"""Tokens in a span. Carlini et al. (2023), "Quantifying memorization across neural language models", test 50 too."""

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)


def span_hashes(tokens: npt.NDArray[Any], span: int) -> Hashes:
    """The hash of every run of `span` tokens: shape (len(tokens) - span + 1,), empty when there are too few.

    Rabin-Karp modulo 2^64 by prefix sums: with P(i) = sum over k < i of mix(x_k) B^k, the window at i is
    (P(i + span) - P(i)) B^-i. Tokens are mixed first, because small numbers times powers of one base collide easily.
    Source: Karp and Rabin (1987), "Efficient randomized pattern-matching algorithms", IBM Journal 31.
    """
    count = len(tokens) - span + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    powers = np.full(len(tokens), _BASE, dtype=np.uint64)
    powers[0] = 1
    np.cumprod(powers, out=powers)
    prefix = np.zeros(len(tokens) + 1, dtype=np.uint64)
    np.cumsum(mix(tokens.astype(np.uint64), 1) * powers, out=prefix[1:])
    windows: Hashes = prefix[span:] - prefix[:count]
    powers = np.full(count, _BASE_INVERSE, dtype=np.uint64)
    powers[0] = 1
    np.cumprod(powers, out=powers)
    windows *= powers
    return windows


@dataclass(frozen=True)
class TrainingSpans:
    """Every span of the training tokens, as sorted hashes: 8 bytes a token.

    Without `tokens` the answer rests on the hashes alone: a false alarm has a chance of about
    spans / 2^64 (3e-13 for six million) a query. With `tokens` kept, each hit is compared token by token.
    """

    hashes: Hashes
    span: int = SPAN
    tokens: npt.NDArray[Any] | None = None
    starts: npt.NDArray[np.int64] | None = None

    @classmethod
    def build(cls, tokens: npt.NDArray[Any], span: int = SPAN, exact: bool = False) -> TrainingSpans:
        """From a stream of token ids, shape (tokens,), any unsigned type. `exact` keeps the stream to compare with.

        Raises:
            ValueError: a span below 1.
        """
        if span < 1:
            raise ValueError("a span has at least one token")
        hashes = span_hashes(tokens, span)
        if not exact:
            hashes.sort()
            return cls(hashes, span)
        order = np.argsort(hashes)
        return cls(hashes[order], span, tokens, order)

    def copied(self, ids: Sequence[int]) -> bool:
        """Whether some run of `span` tokens of `ids` stands in the training text."""
        return bool(self._hits(ids).any())

    def longest(self, ids: Sequence[int]) -> int:
        """Tokens in the longest copied run, 0 when none reaches `span`.

        Neighbouring hits count as one run: they overlap in all but one token.
        """
        hits = self._hits(ids)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], hits.astype(np.int8), [0]))))
        runs = edges[1::2] - edges[::2]
        return int(runs.max()) + self.span - 1 if len(runs) else 0

    def _hits(self, ids: Sequence[int]) -> npt.NDArray[np.bool_]:
        asked = np.asarray(ids, dtype=np.uint64)
        hashes = span_hashes(asked, self.span)
        if not len(self.hashes) or not len(hashes):
            return np.zeros(len(hashes), dtype=np.bool_)
        places = np.searchsorted(self.hashes, hashes)
        hits: npt.NDArray[np.bool_] = self.hashes[np.minimum(places, len(self.hashes) - 1)] == hashes
        if self.tokens is not None:
            for at in np.flatnonzero(hits):
                hits[at] = self._stands_there(asked[at : at + self.span], hashes[at], int(places[at]))
        return hits

    def _stands_there(self, asked: Hashes, hashed: np.uint64, place: int) -> bool:
        assert self.tokens is not None and self.starts is not None
        while place < len(self.hashes) and self.hashes[place] == hashed:
            start = int(self.starts[place])
            if np.array_equal(self.tokens[start : start + self.span].astype(np.uint64), asked):
                return True
            place += 1
        return False
