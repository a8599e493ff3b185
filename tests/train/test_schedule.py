import pytest

from ownlm.train.schedule import Schedule


def test_warm_up_stable_decay() -> None:
    schedule = Schedule(100, "wsd", warmup=0.1, decay=0.5)
    assert [schedule.factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert {schedule.factor(step) for step in range(9, 51)} == {1.0}
    assert [schedule.factor(step) for step in (51, 75, 99)] == pytest.approx([0.98, 0.5, 0.02])


def test_cosine_and_linear_fall_to_the_final_factor() -> None:
    linear = Schedule(110, "linear", warmup=10 / 110, final=0.1)
    cosine = Schedule(110, "cosine", warmup=10 / 110, final=0.1)
    for schedule in (linear, cosine):
        assert [schedule.factor(step) for step in (9, 60, 110)] == pytest.approx([1.0, 0.55, 0.1])
    assert linear.factor(35) == pytest.approx(0.775)
    assert cosine.factor(35) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + 0.5**0.5))


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_it_rises_once_and_falls_once(kind: str, steps: int) -> None:
    factors = [Schedule(steps, kind).factor(step) for step in range(steps)]  # type: ignore[arg-type]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
