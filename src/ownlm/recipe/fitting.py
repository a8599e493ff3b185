"""Fitting a scaling law to points, and saying how far it may be trusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ownlm.recipe.scaling import PUBLISHED, ScalingLaw, Span, useful_bytes
from ownlm.runtime.errors import OwnLMError

HUBER = 1e-3
"""Residuals of the logarithm beyond this count linearly: one bad run does not bend the law."""
FEWEST_POINTS = 4
FULL_POINTS = 8
"""So many points determine all five numbers; with fewer, or at one size, those of the size term are borrowed."""
NARROW = 3.0
"""The largest must be so many times the smallest for an exponent to be fitted."""
DRAWS = 200

Floats = NDArray[np.float64]
_BOUNDS = ((-12.0, 12.0), (-12.0, 12.0), (-12.0, 4.0), (0.01, 2.0), (0.01, 2.0))
_GRID = ((-3.0, -1.0, 1.0), (-3.0, -1.0, 1.0), (-4.0, -1.0, 0.5), (0.1, 0.3, 0.6), (0.1, 0.3, 0.6))
_STARTS = 24
_CONSTANT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Point:
    """One finished run: parameters that multiply, bytes read and how many of them were different, and the outcome."""

    parameters: float
    read: float
    distinct: float
    bits_per_byte: float
    name: str = ""

    @property
    def useful(self) -> float:
        """The bytes read after repeats are discounted."""
        return useful_bytes(self.read, self.distinct)


@dataclass(frozen=True)
class Fit:
    """A law and its quality.

    `intervals` are the middle 90 % of each number over bootstrap samples of the points; `residuals` the relative
    errors at the points; `left_out` the relative error of each point under the law of all others; `borrowed` names the
    numbers that the points could not determine; `warnings` are for people.
    """

    law: ScalingLaw
    points: tuple[Point, ...]
    intervals: dict[str, tuple[float, float]]
    residuals: tuple[float, ...]
    left_out: tuple[float, ...]
    borrowed: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def typical_error(self) -> float:
        """The mean size of the leave-one-out errors."""
        return float(np.mean(np.abs(self.left_out)))


def fit(points: Sequence[Point], seed: int = 0) -> Fit:
    """`log L = logsumexp(log a - alpha n, log b - beta d, log floor)` by Huber loss on `log L`, from a grid of starts.

    Approach 3 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3), summed and run to convergence as its replication
    by Besiroglu et al. 2024 (arXiv 2404.10102) found necessary. L-BFGS with the exact gradient; the interval by
    bootstrap over points.

    Raises:
        OwnLMError: too few points, or too narrow a range, to say anything.
    """
    check(points)
    free = _free(points)
    sizes = np.log([point.parameters / 1e6 for point in points])
    texts = np.log([point.useful / 1e6 for point in points])
    losses = np.log([point.bits_per_byte for point in points])
    bases = _borrowed(points)
    everything = np.ones(len(points))
    best = _search(sizes, texts, losses, bases, free)
    predicted = _predict(best, sizes, texts)[0]
    left_out = []
    for index in range(len(points)):
        weights = everything.copy()
        weights[index] = 0
        other, _ = _descend(best, sizes, texts, losses, weights, free)
        left_out.append(
            math.expm1(float(_predict(other, sizes[index : index + 1], texts[index : index + 1])[0][0]) - losses[index])
        )
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        weights = np.bincount(random.integers(len(points), size=len(points)), minlength=len(points)).astype(float)
        drawn, _ = _descend(best, sizes, texts, losses, weights, free)
        draws.append(_numbers(drawn))
    names = ("floor", "a", "alpha", "b", "beta")
    columns = np.quantile(np.array(draws), (0.05, 0.95), axis=0)
    spread = 1.645 * float(np.sqrt(np.mean(np.square(left_out))))
    law = ScalingLaw(
        *_numbers(best), spread=max(0.01, spread),
        seen_parameters=_span([point.parameters for point in points]),
        seen_bytes=_span([point.useful for point in points]),
        source=f"a law fitted to {len(points)} runs", draws=tuple(draws),
    )  # fmt: skip
    order = (2, 0, 3, 1, 4)  # of the numbers in the descent's vector: floor, a, alpha, b, beta
    borrowed = tuple(name for name, at in zip(names, order, strict=True) if not free[at])
    return Fit(
        law, tuple(points),
        {name: (float(low), float(high)) for name, low, high in zip(names, *columns, strict=True)},
        tuple(float(each) for each in np.expm1(predicted - losses)), tuple(left_out), borrowed,
        tuple(_warnings(points, free, left_out)),
    )  # fmt: skip


def check(points: Sequence[Point]) -> None:
    """
    Raises:
        OwnLMError: too few points, or too narrow a range, to say anything.
    """
    if len(points) < FEWEST_POINTS:
        raise OwnLMError(
            f"A scaling law cannot be fitted to {len(points)} {'run' if len(points) == 1 else 'runs'}: it needs "
            f"{FEWEST_POINTS}, and {FULL_POINTS} at different sizes and lengths to be fitted in full. Train some more "
            "with other --minutes."
        )
    if _range([point.useful for point in points]) < NARROW:
        low, high = min(point.useful for point in points), max(point.useful for point in points)
        raise OwnLMError(
            f"The runs read {low / 1e6:.3g} to {high / 1e6:.3g} MB: too narrow a range to say how more text helps. "
            f"Add a run that reads {NARROW:g} times as much as the shortest."
        )


def _free(points: Sequence[Point]) -> NDArray[np.bool_]:
    """Which of (log a, log b, log floor, alpha, beta) the points determine; the text term always."""
    full = len(points) >= FULL_POINTS and _range([point.parameters for point in points]) >= NARROW
    return np.array([full, True, full, full, True])


def _borrowed(points: Sequence[Point]) -> list[Floats]:
    """The published law's numbers, its floor and size term shrunk together to several shares of the best loss reached.

    At one size both are one constant, of which the points know the size and the published law how it is made up.
    """
    lowest = min(points, key=lambda point: point.bits_per_byte)
    law = PUBLISHED
    constant = law.floor + law.a * (lowest.parameters / 1e6) ** -law.alpha
    shares = (lowest.bits_per_byte / constant * share for share in _CONSTANT)
    return [
        np.array([math.log(share * law.a), math.log(law.b), math.log(share * law.floor), law.alpha, law.beta])
        for share in shares
    ]


def _predict(theta: Floats, sizes: Floats, texts: Floats) -> tuple[Floats, Floats]:
    """Log loss at each point, and the shares (3, points) that the size, the text and the floor have in it."""
    a, b, e, alpha, beta = theta
    terms = np.stack((a - alpha * sizes, b - beta * texts, np.full_like(sizes, e)))
    highest = terms.max(0)
    shares = np.exp(terms - highest)
    total = shares.sum(0)
    return highest + np.log(total), shares / total


def _objective(theta: Floats, sizes: Floats, texts: Floats, losses: Floats, weights: Floats) -> tuple[float, Floats]:
    """The summed Huber loss over `HUBER`, and its gradient."""
    predicted, shares = _predict(theta, sizes, texts)
    residuals = predicted - losses
    clipped = np.clip(residuals, -HUBER, HUBER)
    value = (weights * clipped * (residuals - 0.5 * clipped)).sum() / HUBER
    pull = weights * clipped / HUBER
    gradient = np.array([
        (pull * shares[0]).sum(), (pull * shares[1]).sum(), (pull * shares[2]).sum(),
        -(pull * shares[0] * sizes).sum(), -(pull * shares[1] * texts).sum(),
    ])  # fmt: skip
    return float(value), gradient


def _descend(
    start: Floats, sizes: Floats, texts: Floats, losses: Floats, weights: Floats, free: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """The local minimum below `start` over the free numbers, and its value."""

    def part(values: Floats) -> tuple[float, Floats]:
        theta = start.copy()
        theta[free] = values
        value, gradient = _objective(theta, sizes, texts, losses, weights)
        return value, gradient[free]

    bounds = [bound for bound, is_free in zip(_BOUNDS, free, strict=True) if is_free]
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(part, start[free], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    theta = start.copy()
    theta[free] = found.x
    return theta, float(found.fun)


def _search(sizes: Floats, texts: Floats, losses: Floats, bases: Sequence[Floats], free: NDArray[np.bool_]) -> Floats:
    """The best of the minima below the most promising starts of the grid; what is not free stays as in a base."""
    weights = np.ones(len(losses))
    starts = list(bases)
    for base in bases[:1] if free.all() else bases:
        grids = [values if is_free else (fixed,) for values, fixed, is_free in zip(_GRID, base, free, strict=True)]
        starts += [np.array(start) for start in itertools.product(*grids)]
    starts.sort(key=lambda start: _objective(start, sizes, texts, losses, weights)[0])
    kept = starts[:_STARTS] if free.all() else starts
    minima = [_descend(start, sizes, texts, losses, weights, free) for start in kept]
    return min(minima, key=lambda each: each[1])[0]


def _numbers(theta: Floats) -> tuple[float, float, float, float, float]:
    """(floor, a, alpha, b, beta)"""
    a, b, e, alpha, beta = (float(each) for each in theta)
    return math.exp(e), math.exp(a), alpha, math.exp(b), beta


def _range(values: Sequence[float]) -> float:
    return max(values) / min(values)


def _span(values: Sequence[float]) -> Span:
    return Span(min(values), max(values))


def _warnings(points: Sequence[Point], free: NDArray[np.bool_], left_out: Sequence[float]) -> list[str]:
    found = []
    if not free.all():
        sizes = _range([point.parameters for point in points])
        why = f"{len(points)} runs" if len(points) < FULL_POINTS else f"models that differ in size {sizes:.1f} times"
        found.append(
            f"{why} do not say how size matters: that part of the law is the published one's. Forecasts for other "
            "sizes are weak."
        )
    worst = max(range(len(points)), key=lambda index: abs(left_out[index]))
    if abs(left_out[worst]) > 0.1:
        found.append(
            f"{points[worst].name or f'point {worst + 1}'} is {abs(left_out[worst]):.0%} off what the others forecast."
        )
    return found
