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


@pytest.mark.parametrize("step", [0, 3, 20, 50, 70, 95, 99])
def test_finishing_ends_within_a_tenth_of_the_steps_done(step: int) -> None:
    schedule = Schedule(100, "wsd", warmup=0.1, decay=0.5)
    finishing = schedule.finishing(step)
    assert step < finishing.steps <= min(100, step + max(1, step // 10))
    assert [finishing.factor(each) for each in range(step)] == [schedule.factor(each) for each in range(step)]
    factors = [finishing.factor(each) for each in range(step, finishing.steps)]
    assert factors[0] == pytest.approx(schedule.factor(step))
    assert factors == sorted(factors, reverse=True) and finishing.factor(finishing.steps) == 0


@pytest.mark.parametrize("kind", ["wsd", "cosine", "linear"])
@pytest.mark.parametrize("step", [0, 3, 30, 70, 99])
def test_extending_holds_the_rate_and_falls_later(kind: str, step: int) -> None:
    schedule = Schedule(100, kind, warmup=0.1, decay=0.3)  # type: ignore[arg-type]
    longer = schedule.extended(step, 40)
    assert longer.steps == 140
    assert [longer.factor(each) for each in range(step)] == [schedule.factor(each) for each in range(step)]
    assert [longer.factor(each) for each in range(min(step, 10), 10)] == [(each + 1) / 10 for each in range(step, 10)]
    rest = [longer.factor(each) for each in range(max(step, 10), 141)]
    assert rest == sorted(rest, reverse=True) and rest[-1] == 0
    if step >= 10:
        assert rest[0] == pytest.approx(schedule.factor(step))


def test_two_wishes_while_it_warms_up_do_not_hold_it_down() -> None:
    schedule = Schedule(1000, warmup=0.03).extended(5, 100).extended(5, 100)
    assert [schedule.factor(step) for step in (5, 29, 30, 600)] == [0.2, 1.0, 1.0, 1.0]


def test_a_linear_fall_is_held_and_then_takes_as_long_as_before() -> None:
    longer = Schedule(100, "linear", warmup=0.01).extended(10, 10)
    assert [longer.factor(step) for step in (11, 20)] == [pytest.approx(Schedule(100, "linear", 0.01).factor(10))] * 2
    assert longer.factor(65) == pytest.approx(longer.factor(20) / 2)


def test_finishing_may_take_fewer_steps() -> None:
    assert Schedule(100).finishing(50, 2).steps == 52


def test_wishes_one_after_the_other() -> None:
    schedule = Schedule(100, decay=0.2).extended(50, 100).extended(60, 10)
    assert schedule.steps == 210
    assert schedule.factor(180) == 1.0 and schedule.factor(200) == pytest.approx(0.5)
    ended = schedule.finishing(100)
    assert ended.steps == 110 and ended.factor(105) == pytest.approx(0.5)
    assert ended.factor(2) == pytest.approx(Schedule(100).factor(2))
