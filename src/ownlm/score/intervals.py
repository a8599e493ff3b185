"""Intervals and tests for what is measured on a sample. Nothing in a report stands without one of these.

Sources:
- Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22: proportions.
- Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7: percentile bootstrap.
- McNemar (1947), Psychometrika 12, in its exact binomial form: two systems judged on the same items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CELLS = 4_000_000
"""Random indices drawn at once: bounds a bootstrap's memory at 32 MB however many items there are."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """`{"value", "low", "high", "n"}`"""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Interval:
        """The reverse of `to_json`; raises KeyError for a missing field."""
        return cls(float(data["value"]), float(data["low"]), float(data["high"]), int(data["n"]))

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside: the usual sense of "significant" when it is zero and this a difference."""
        return value < self.low or value > self.high


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion: it stays inside 0..1 and behaves near both ends, unlike p +- 2 sd.

    Raises:
        ValueError: `successes` is not between 0 and `n`, or `n` is 0.
    """
    from scipy.stats import binomtest

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is no proportion")
    bounds = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bootstrap_mean(values: Sequence[float] | Floats, seed: int, level: float = 0.95, samples: int = 10_000) -> Interval:
    """Percentile bootstrap of a mean.

    Raises:
        ValueError: there are no values.
    """
    return bootstrap_ratio(values, np.ones(len(values)), seed, level, samples)


def paired_bootstrap(
    before: Sequence[float] | Floats,
    after: Sequence[float] | Floats,
    seed: int,
    level: float = 0.95,
    samples: int = 10_000,
) -> Interval:
    """Percentile bootstrap of the mean of `after - before`, measured on the same items in the same order.

    Raises:
        ValueError: the lengths differ, or there are no items.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} items before and {len(after)} after are not pairs")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(differences, seed, level, samples)


def bootstrap_ratio(
    numerators: Sequence[float] | Floats,
    denominators: Sequence[float] | Floats,
    seed: int,
    level: float = 0.95,
    samples: int = 10_000,
) -> Interval:
    """Percentile bootstrap of sum(numerators) / sum(denominators), resampling items whole.

    The right form for rates over items of different size, such as bits per byte over documents.

    Raises:
        ValueError: the lengths differ, there are no items, or the denominators do not add up to more than zero.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    n = len(above)
    if n == 0 or len(below) != n or below.sum() <= 0:
        raise ValueError("a bootstrap needs at least one item, and as many numerators as (positive) denominators")
    rng = np.random.default_rng(seed)
    ratios = np.empty(samples)
    rows = max(1, CELLS // n)
    for start in range(0, samples, rows):
        drawn = rng.integers(0, n, size=(min(rows, samples - start), n))
        # A resample may hold only items without weight; its ratio is then undefined and drops out below.
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios[start : start + len(drawn)] = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(np.where(np.isfinite(ratios), ratios, np.nan), [tail, 100 - tail])
    return Interval(float(above.sum() / below.sum()), float(low), float(high), n)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that A and B are equally good, from the items that only one of them got right.

    1.0 when they never differ.

    Raises:
        ValueError: a negative count.
    """
    from scipy.stats import binomtest

    if only_a < 0 or only_b < 0:
        raise ValueError("counts cannot be negative")
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)
