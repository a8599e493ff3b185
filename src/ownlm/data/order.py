"""The order of training examples: a permutation, computed and not stored, so resuming is exact and costs nothing."""

from __future__ import annotations

import numpy as np

from ownlm.runtime.counter_random import Integers, mix
from ownlm.runtime.seeds import derive_seed

_ROUNDS = 4


def permute(indices: Integers, size: int, *key: object) -> Integers:
    """Where each of `indices` (each < `size`) goes under the pseudo-random permutation that `key` names.

    A balanced Feistel network over the next even power of two, walked until the value falls below `size` (Black and
    Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = [derive_seed(round_, *key) for round_ in range(_ROUNDS)]
    values = indices.astype(np.uint64)
    pending = np.ones(values.shape, dtype=bool)
    while pending.any():
        left, right = values[pending] >> np.uint64(half), values[pending] & mask
        for each in keys:
            left, right = right, left ^ (mix(right, each) & mask)
        values[pending] = (left << np.uint64(half)) | right
        pending = values >= size
    return values


def sample_indices(first: int, count: int, size: int, fingerprint: str, seed: int) -> tuple[Integers, Integers]:
    """Epochs and example indices `(count,)` of the draws `first .. first + count - 1`."""
    return sample_draws(np.arange(first, first + count, dtype=np.uint64), size, fingerprint, seed)


def sample_draws(draws: Integers, size: int, fingerprint: str, seed: int) -> tuple[Integers, Integers]:
    """Epochs and example indices of any `draws`, in their shape.

    Each epoch is a permutation of `range(size)` of its own; draw n depends on nothing but n and the key.
    """
    epochs, places = draws // np.uint64(size), draws % np.uint64(size)
    indices = np.empty_like(places)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = permute(places[chosen], size, fingerprint, seed, int(epoch))
    return epochs, indices
