"""Two token streams as one, and an objective that takes a fixed share of its windows from the second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ownlm.data.order import permute, sample_draws
from ownlm.data.shards import TokenStream
from ownlm.runtime.counter_random import Integers
from ownlm.runtime.errors import CorpusError, OwnLMError
from ownlm.train.pretrain import PretrainObjective

BLOCK = 1000
"""Draws among which the share is exact."""


class Joined:
    """Two arrays one after the other along their first axis, of which slices are read; neither is copied as a whole."""

    def __init__(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, place: slice) -> NDArray[Any]:
        start, stop, _ = place.indices(len(self))
        border = len(self._first)
        parts = self._first[start:stop], self._second[max(0, start - border) : max(0, stop - border)]
        return parts[1] if start >= border else parts[0] if stop <= border else np.concatenate(parts)


def joined(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """`Joined`, as the array that it stands for."""
    return cast("NDArray[Any]", Joined(first, second))


def join(first: TokenStream, second: TokenStream) -> TokenStream:
    """One stream after the other: documents keep their order and their ids."""
    return TokenStream(
        joined(first.ids, second.ids),
        np.concatenate((first.starts[:-1], second.starts + len(first.ids))),
        [*first.sources, *second.sources],
        [*first.kinds, *second.kinds],
        np.concatenate((first.bytes, second.bytes)),
        [*first.sha256, *second.sha256],
    )


@dataclass(frozen=True)
class MixtureObjective(PretrainObjective):
    """Pre-training on a joined stream: `replayed` of the windows come from its part from token `border` on.

    Continued pre-training that replays a part of what a model was trained on forgets less of it (Ibrahim et al. 2024,
    "Simple and Scalable Strategies to Continually Pre-train Large Language Models", arXiv 2403.08763).

    Which draws are replayed is a permutation of each block of `BLOCK` draws, so that the share is exact in each and
    nothing depends on the steps before. Each part has epochs of its own.
    """

    border: int = 0
    replayed: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.replayed < 1:
            raise OwnLMError(f"A share of {self.replayed:g} cannot be replayed: it lies between 0 and 1.")
        for name, size in (("new", self.border), ("replayed", len(self.ids) - self.border)):
            if size <= self.context:
                raise CorpusError(
                    f"The {name} corpus has {size} tokens, too few for one window of {self.context} and its next "
                    "token. Give more documents."
                )

    def replays(self, step: int) -> NDArray[np.bool_]:
        """Which of the step's draws are replayed, over all processes."""
        return self._draws(step)[1]

    def _draws(self, step: int) -> tuple[Integers, NDArray[np.bool_]]:
        """For each draw its number among those of its own part, and whether that is the second part."""
        first, count = self.batching.draws(step)
        parts = [self._block(block) for block in range(first // BLOCK, (first + count - 1) // BLOCK + 1)]
        within = slice(first % BLOCK, first % BLOCK + count)
        numbers, second = (np.concatenate(each)[within] for each in zip(*parts, strict=True))
        return numbers, second

    def _block(self, block: int) -> tuple[Integers, NDArray[np.bool_]]:
        """`_draws` for a whole block of draws."""
        several = round(self.replayed * BLOCK)
        places = np.arange(BLOCK, dtype=np.uint64)
        second = permute(places, BLOCK, self.fingerprint, "replay", self.seed, block) < several
        before = np.cumsum(second, dtype=np.uint64) - second
        own = np.where(second, block * several + before, block * (BLOCK - several) + places - before)
        return own.astype(np.uint64), second

    def window_starts(self, step: int) -> NDArray[np.int64]:
        draws, second = self._draws(step)
        starts = np.empty(len(draws), dtype=np.int64)
        for part, begin, end in ((~second, 0, self.border), (second, self.border, len(self.ids))):
            windows = (end - 1 - begin) // self.context
            _, indices = sample_draws(draws[part], windows, f"{self.fingerprint} {begin}", self.seed)
            starts[part] = begin + indices.astype(np.int64) * self.context
        return starts
