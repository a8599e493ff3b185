"""Random numbers that are computed from a key and a counter, so that any of them can be had without the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.uint64]


def mix(values: Integers, key: int) -> Integers:
    """SplitMix64's finaliser (Steele et al. 2014): every input bit changes half of the output bits."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seeds: Integers, counter: int) -> NDArray[np.float64]:
    """One number in [0, 1) for each seed at this count, independent of every other seed and count."""
    bits = mix(mix(seeds, 0x9E3779B97F4A7C15), counter)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
