"""Fitting a scaling law: laws that are known come back, and too little is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.optimize import check_grad

from ownlm.recipe import fitting
from ownlm.recipe.fitting import Point, fit
from ownlm.recipe.scaling import PUBLISHED, ScalingLaw, useful_bytes
from ownlm.runtime.errors import OwnLMError

TRUE = ScalingLaw(floor=0.5, a=0.6, alpha=0.4, b=1.3, beta=0.3, spread=0)
NAMES = ("floor", "a", "alpha", "b", "beta")


def runs(law: ScalingLaw = TRUE, noise: float = 0.0, sizes: tuple[float, ...] = (1e6, 4e6, 2e7, 1e8)) -> list[Point]:
    random = np.random.default_rng(0)
    return [
        Point(size, text, text, law.at(size, text) * float(np.exp(noise * random.standard_normal())), f"{size} {text}")
        for size in sizes
        for text in (2e6, 1e7, 5e7, 3e8)
    ]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "DRAWS", 40)


@pytest.mark.parametrize("law", [TRUE, PUBLISHED])
def test_a_law_without_noise_comes_back(law: ScalingLaw) -> None:
    sizes = (1e6, 4e6, 2e7, 1e8) if law is TRUE else (5e7, 3e8, 2e9, 1e10)
    points = runs(law, sizes=sizes)
    if law is PUBLISHED:
        texts = [dataclasses.replace(point, read=1000 * point.read, distinct=1000 * point.read) for point in points]
        points = [dataclasses.replace(each, bits_per_byte=law.at(each.parameters, each.read)) for each in texts]
    found = fit(points)
    for name in NAMES:
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), rel=1e-3), name
    assert found.typical_error < 1e-4
    assert not found.borrowed
    assert not found.warnings


def test_the_gradient_is_that_of_the_objective() -> None:
    points = runs(noise=0.02)
    data = [np.log([getattr(point, name) / 1e6 for point in points]) for name in ("parameters", "read")]
    losses, weights = np.log([point.bits_per_byte for point in points]), np.linspace(0.5, 2, len(points))
    for theta in (np.array([-1.0, 0.2, -0.5, 0.3, 0.4]), np.array([0.5, 0.5, -2.0, 0.6, 0.1])):
        wrong = check_grad(
            lambda x: fitting._objective(x, *data, losses, weights)[0],
            lambda x: fitting._objective(x, *data, losses, weights)[1],
            theta,
        )  # fmt: skip
        assert wrong < 1e-3


def test_noise_widens_the_intervals_and_they_hold_the_truth() -> None:
    quiet, noisy = fit(runs(noise=0.003)), fit(runs(noise=0.02))
    for name in ("alpha", "beta"):
        low, high = noisy.intervals[name]
        assert high - low > quiet.intervals[name][1] - quiet.intervals[name][0]
        assert low - 0.05 < getattr(TRUE, name) < high + 0.05
    assert noisy.law.spread > quiet.law.spread


def test_one_bad_run_does_not_bend_the_law() -> None:
    points = runs(noise=0.003)
    spoiled = [*points[:7], dataclasses.replace(points[7], bits_per_byte=2 * points[7].bits_per_byte), *points[8:]]
    found = fit(spoiled)
    assert found.law.at(4e6, 3e7) == pytest.approx(TRUE.at(4e6, 3e7), rel=0.02)
    assert any(points[7].name in warning for warning in found.warnings)


def test_repeats_count_less() -> None:
    points = [
        Point(size, read, 1e7, TRUE.at(size, useful_bytes(read, 1e7)))
        for size in (1e6, 5e6, 3e7)
        for read in (2e6, 1e7, 5e7, 3e8)
    ]
    assert fit(points).law.beta == pytest.approx(TRUE.beta, rel=1e-3)


def test_leaving_a_run_out_is_an_honest_forecast() -> None:
    """The error at the largest run is that of a fit that never saw it."""
    points = runs(noise=0.01)
    found = fit(points)
    alone = fit(points[:-1]).law
    error = alone.at(points[-1].parameters, points[-1].useful) / points[-1].bits_per_byte - 1
    assert found.left_out[-1] == pytest.approx(error, abs=2e-3)


def test_runs_of_one_size_borrow_how_size_matters() -> None:
    points = [Point(2.4e6, text, text, TRUE.at(2.4e6, text)) for text in (1e6, 3e6, 9e6, 3e7, 6e7)]
    found = fit(points)
    assert found.borrowed == ("floor", "a", "alpha")
    assert found.law.alpha == PUBLISHED.alpha
    assert "do not say how size matters" in found.warnings[0]
    for point in points:
        assert found.law.at(point.parameters, point.useful) == pytest.approx(point.bits_per_byte, rel=0.02)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_runs(count: int) -> None:
    with pytest.raises(OwnLMError, match=f"cannot be fitted to {count} run.*: it needs 4, and 8"):
        fit(runs()[:count])


def test_too_narrow_a_range() -> None:
    points = [Point(1e6 * n, 1e7 + n, 1e8, 1.5) for n in range(1, 9)]
    with pytest.raises(OwnLMError, match="too narrow a range to say how more text helps. Add a run that reads 3 times"):
        fit(points)


def test_the_same_points_give_the_same_fit() -> None:
    assert fit(runs(noise=0.01)) == fit(runs(noise=0.01))
