import math
import random

import pytest

from ownlm.train.spikes import SpikeRule, Watchman


def calm(steps: int, seed: int = 0) -> list[tuple[float, float]]:
    """Losses that fall, and gradients of many sizes, as at the beginning of a run."""
    numbers = random.Random(seed)
    return [
        (3 + 5 * math.exp(-each / 60) + numbers.gauss(0, 0.1), numbers.lognormvariate(0, 0.7)) for each in range(steps)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_usual_run_has_no_spikes(seed: int) -> None:
    watchman = Watchman(SpikeRule())
    assert [watchman.judge(*step) for step in calm(1000, seed)] == [None] * 1000


@pytest.mark.parametrize("bad", [(7.0, 1.0), (3.0, 60.0)], ids=["loss", "gradient"])
def test_a_spike_is_told_and_not_learnt_from(bad: tuple[float, float]) -> None:
    watchman = Watchman(SpikeRule())
    for step in calm(300):
        watchman.judge(*step)
    for _ in range(20):
        assert [watchman.judge(*bad) for _ in range(5)] == ["spike"] * 5 and watchman.in_a_row == 5
        assert watchman.judge(*calm(301)[-1]) is None and watchman.in_a_row == 0
    assert watchman.skipped == 100


def test_weights_that_have_moved_may_move_back() -> None:
    watchman, steps = Watchman(SpikeRule()), [(4.5, 1.0)] * 60
    for step in calm(300):
        watchman.judge(*step)
    assert [watchman.judge(*step) for step in steps] == ["spike"] * 5 + [None] * 55
    assert watchman.judge(6.0, 1.0) == "spike"  # from the new level


def test_a_loss_above_the_first_is_never_taken() -> None:
    watchman = Watchman(SpikeRule())
    for step in calm(300):
        watchman.judge(*step)
    assert [watchman.judge(9.0, 1.0) for _ in range(100)] == ["spike"] * 100
    assert watchman.in_a_row == 100


def test_a_text_known_by_heart_has_no_spikes() -> None:
    watchman = Watchman(SpikeRule())
    steps = [(3e-5, 7e-4)] * 100 + [(1.4e-3, 0.85), (7e-4, 0.43)] * 10
    assert [watchman.judge(*step) for step in steps] == [None] * 120
    assert watchman.judge(0.5, 0.5) == "spike"


def test_non_finite_numbers_are_told_with_and_without_a_rule() -> None:
    for rule in (None, SpikeRule()):
        watchman = Watchman(rule)
        assert watchman.judge(math.nan, 1.0) == watchman.judge(1.0, math.inf) == "non-finite"
        assert watchman.judge(1e9, 1e9) is None


def test_nothing_is_a_spike_before_enough_was_seen() -> None:
    watchman = Watchman(SpikeRule(window=20))
    assert [watchman.judge(10.0 ** (each % 7), 1.0) for each in range(10)] == [None] * 10


def test_who_was_told_judges_as_who_saw() -> None:
    one, other = Watchman(SpikeRule()), Watchman(SpikeRule())
    steps = [*calm(100), (99.0, 1.0), *calm(10), (math.nan, 1.0), *[(5.0, 99.0)] * 10, *calm(9)]
    for step in steps:
        other.note(*step, one.judge(*step))
    again = [*calm(50, 3), (99.0, 1.0), (50.0, 1.0), (4.0, 500.0)]
    assert [one.judge(*step) for step in again] == [other.judge(*step) for step in again]
    assert (one.in_a_row, one.skipped) == (other.in_a_row, other.skipped)
