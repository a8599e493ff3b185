import numpy as np
import pytest
from scipy.stats import binom

from ownlm.score.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    mcnemar_exact,
    paired_bootstrap,
    wilson,
)


def test_wilson_agrees_with_the_formula() -> None:
    z, p, n = 1.959963984540054, 0.3, 50
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = wilson(15, 50)
    assert found.value == 0.3 and found.n == 50
    assert found.low == pytest.approx(centre - half) and found.high == pytest.approx(centre + half)


def test_wilson_stays_inside_zero_and_one() -> None:
    assert wilson(0, 5).low == 0 and 0 < wilson(0, 5).high < 0.6
    assert wilson(5, 5).high == 1 and 0.4 < wilson(5, 5).low < 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_nonsense(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        interval = bootstrap_mean(rng.normal(2.0, 1.0, 80), seed=trial, samples=600)
        covered += interval.low <= 2.0 <= interval.high
    assert 178 <= covered <= 200


def test_bootstrap_is_repeatable_and_narrows_with_more_items() -> None:
    values = np.random.default_rng(0).random(400)
    assert bootstrap_mean(values, 3) == bootstrap_mean(values, 3)
    assert bootstrap_mean(values, 3) != bootstrap_mean(values, 4)
    few, many = bootstrap_mean(values[:40], 3), bootstrap_mean(values, 3)
    assert many.high - many.low < few.high - few.low


def test_chunks_do_not_change_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    from ownlm.score import intervals

    values = np.random.default_rng(0).random(50)
    whole = bootstrap_mean(values, 3, samples=500)
    monkeypatch.setattr(intervals, "CELLS", 77)
    parts = bootstrap_mean(values, 3, samples=500)
    assert parts.low == pytest.approx(whole.low) and parts.high == pytest.approx(whole.high)


def test_a_ratio_weighs_items_by_size() -> None:
    found = bootstrap_ratio([10, 1], [100, 1], seed=0)
    assert found.value == pytest.approx(11 / 101)
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(1.0)


def test_pairs_see_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(0, 10, 60)
    gain = paired_bootstrap(before, before + 0.5 + rng.normal(0, 0.1, 60), seed=1)
    assert gain.excludes(0) and gain.value == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="not pairs"):
        paired_bootstrap([1, 2], [1], seed=0)


def test_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], seed=0)


def test_mcnemar() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert mcnemar_exact(5, 5) == pytest.approx(1.0)


def test_interval_round_trips() -> None:
    interval = Interval(0.5, 0.25, 0.75, 8)
    assert Interval.from_json(interval.to_json()) == interval
