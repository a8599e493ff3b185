"""What the Watch page says before and after a run is asked for something."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.studio import steering
from ownlm.studio.steering import Steering, outlook, read_steering, told
from ownlm.train.control import FileControl, Finish, More, ask_finish, ask_more
from ownlm.train.schedule import Schedule
from ownlm.train.turns import Change, write_changes


def test_where_no_run_listens_nothing_can_be_asked(tmp_path: Path) -> None:
    assert read_steering(tmp_path) is None


def test_what_was_asked_is_waiting_until_the_run_takes_it(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    assert read_steering(tmp_path) == Steering(tmp_path)
    ask_more(tmp_path, 300)
    ask_finish(tmp_path)
    found = read_steering(tmp_path)
    assert found is not None and found.finishing
    assert found.asked == (More(300.0), Finish())
    assert told(found, 10, 100, 5.0) == [
        "Asked to finish; the run takes it up before its next step.",
        "Asked to go on for 5.0 min longer; the run takes it up before its next step.",
    ]
    control.asked()
    write_changes(tmp_path, [Change(10, 600), Change(10)])
    found = read_steering(tmp_path)
    assert found == Steering(tmp_path, (Change(10, 600), Change(10)))
    assert found.finishing


def test_a_state_that_is_being_removed_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileControl(tmp_path)

    def gone(folder: Path) -> list[Change]:
        raise FileNotFoundError(folder)

    monkeypatch.setattr(steering, "read_changes", gone)
    assert read_steering(tmp_path) == Steering(tmp_path)


def test_what_took_effect_is_told_the_latest_first(tmp_path: Path) -> None:
    longer, finish = Change(50, 1200), Change(200)
    assert told(Steering(tmp_path, (longer, finish)), 210, 220, 105.0) == [
        "Finishing since step 200: complete at step 220, in about 5 s.",
        "Made longer at step 50: 1,200 steps more.",
    ]
    assert told(Steering(tmp_path, (finish,)), 200, 2000, 100.0) == ["Told to finish at step 200."], "no step since"
    again = Steering(tmp_path, (finish, Change(205, 600)))
    assert told(again, 210, 820, 105.0) == ["Made longer at step 205: 600 steps more.", "Told to finish at step 200."]
    assert not again.finishing, "it may be told to finish once more"


@pytest.mark.parametrize("step", [15, 100, 470, 1000, 1817])
def test_what_finishing_would_come_to_is_what_the_schedule_does(step: int) -> None:
    steps = Schedule(2000).finishing(step).steps
    found = outlook(step, 2000, step * 60.0).finish
    assert f"in about {steering.duration((steps - step) * 60.0)}, a tenth" in found
    assert f"{2000 - steps:,} planned steps are left out" in found


@pytest.mark.parametrize(("step", "steps", "elapsed"), [(0, 100, 0.0), (3, 100, 0.0)])
def test_nothing_is_promised_before_the_first_step(step: int, steps: int, elapsed: float) -> None:
    assert outlook(step, steps, elapsed) == steering.Outlook("", "")


def test_a_run_that_ends_within_a_tenth_anyway_is_not_told_to_finish() -> None:
    found = outlook(95, 100, 950.0)
    assert found.finish == ""
    assert "about 30 more steps" in found.more
    assert "ends in about 5.8 min" in found.more
