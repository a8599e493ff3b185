"""What is read of a workspace while a run goes on and afterwards."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ownlm.store.workspace import Workspace
from ownlm.studio import run_state
from ownlm.studio.run_state import RunReader
from ownlm.train.control import FileControl, Finish, ask_finish
from studio_types import FORECAST, curve, make_models, samples, write_lines

NO_PROCESS = 2**22 + 7
"""Above Linux's largest process id."""


@pytest.fixture(autouse=True)
def _no_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "REFRESH", -1.0)


def begin(workspace: Workspace, pid: int, stage: str = "base", key: str = "abc123", **inputs: str) -> Path:
    folder = workspace.root / ".building" / f"model-m-{key}"
    (folder / "run-state").mkdir(parents=True)
    build = {"kind": "model", "name": "m", "id": key, "inputs": inputs, "settings": {"stage": stage}, "pid": pid}
    started = {"started": "2001-01-01T00:00:00+00:00"}
    (folder / "run-state" / "build.json").write_text(json.dumps({**build, **started}), "utf-8")
    return folder


@contextmanager
def running(workspace: Workspace, stage: str = "base", key: str = "abc123", **inputs: str) -> Iterator[Path]:
    """A build that a process works on: this one."""
    (workspace.root / ".locks").mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.root / ".locks" / f"{key}.lock"):
        yield begin(workspace, os.getpid(), stage, key, **inputs)


def progress(workspace: Workspace, pid: int, command: list[str] | None = None) -> None:
    stages: list[Any] = [
        {"name": "Corpus", "state": "done", "sentence": "Read it.", "seconds": 3.2},
        {"name": "Pre-training", "state": "running", "sentence": "", "seconds": None},
    ]
    data = {"recipe": "first", "command": command or [], "pid": pid, "stage": "Pre-training", "stages": stages,
            "started": "", "minutes": 8}  # fmt: skip
    workspace.root.mkdir(exist_ok=True)
    (workspace.root / "progress.json").write_text(json.dumps(data), "utf-8")


def test_an_empty_workspace(workspace: Workspace) -> None:
    view = RunReader(workspace).view()
    assert (view.running, view.stages, view.trainings, view.current) == (False, (), (), None)


def test_a_live_run_grows(workspace: Workspace) -> None:
    progress(workspace, os.getpid())
    with running(workspace) as folder:
        reader = RunReader(workspace)
        first = reader.view()
        assert first.running
        assert first.current is not None and first.current.live
        assert first.current.points() == []
        rows = curve(30, 8, 2, bits=True)
        write_lines(folder / "metrics.jsonl", rows[:10])
        write_lines(folder / "samples.jsonl", samples(10))
        second = reader.view()
        assert second.version > first.version
        assert second.current is not None
        assert len(second.current.points()) == 10
        assert second.current.in_bits
        assert [step for step, _ in second.current.growth()[0][1]] == [10, 0], "the newest first"
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(rows[10]) + "\n" + json.dumps(rows[11])[:20])
        third = reader.view()
        assert third.current is not None and len(third.current.points()) == 11
        assert reader.view().version == third.version, "nothing new, nothing to draw"


def test_a_run_whose_process_is_gone_is_not_live(workspace: Workspace) -> None:
    progress(workspace, NO_PROCESS)
    begin(workspace, NO_PROCESS)
    view = RunReader(workspace).view()
    assert not view.running
    assert view.current is not None and not view.current.live
    assert [line.state for line in view.stages] == ["done", "waiting"]


def test_a_finished_run_shows_its_three_trainings_and_the_forecast(workspace: Workspace) -> None:
    models = make_models(workspace)
    view = RunReader(workspace).view()
    assert [training.stage for training in view.trainings] == ["base", "instructed", "aligned"]
    assert view.current is not None and view.current.id == models["base"].id
    assert len(view.current.points()) == 412
    assert view.forecast == FORECAST
    assert not view.trainings[1].in_bits, "fine-tuning has no bits per byte"


def test_a_new_run_takes_the_place_of_an_older_one(workspace: Workspace) -> None:
    make_models(workspace)
    with running(workspace, key="new"):
        view = RunReader(workspace).view()
    assert [training.id for training in view.trainings] == ["new"]


def test_only_a_pre_training_that_goes_on_and_listens_can_be_steered(workspace: Workspace) -> None:
    reader = RunReader(workspace)
    with running(workspace, key="new") as folder:
        first = reader.view()
        assert first.current is not None and first.current.steering is None
        FileControl(folder / "run-state")
        second = reader.view()
        assert second.current is not None and second.current.steering is not None
        assert second.version > first.version
        ask_finish(folder / "run-state")
        third = reader.view()
        assert third.version > second.version
        assert third.current is not None and third.current.steering is not None
        assert third.current.steering.asked == (Finish(),)
        assert reader.view().version == third.version
    last = reader.view().current
    assert last is not None and last.steering is None, "it was cut off"
    with running(workspace, "instructed", "tuned", base="new") as folder:
        FileControl(folder / "run-state")
        found = reader.view().current
        assert found is not None and (found.stage, found.steering) == ("instructed", None)


def test_a_view_may_be_read_anew(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_state, "REFRESH", 1000.0)
    reader = RunReader(workspace)
    assert not reader.view(anew=True).running
    progress(workspace, os.getpid())
    assert not reader.view().running
    assert reader.view(anew=True).running


def test_an_abandoned_build_does_not_take_the_place_of_a_finished_model(workspace: Workspace) -> None:
    models = make_models(workspace)
    begin(workspace, NO_PROCESS, key="dead")
    view = RunReader(workspace).view()
    assert [training.id for training in view.trainings] == [each.id for each in models.values()]


def test_a_view_knows_the_command_that_goes_on(workspace: Workspace) -> None:
    progress(workspace, NO_PROCESS, ["demo", "notes", "--minutes", "30"])
    assert RunReader(workspace).view().command == "ownlm demo notes --minutes 30"


def test_a_model_made_of_choices_is_not_a_stage_of_the_run(workspace: Workspace) -> None:
    models = make_models(workspace)
    with running(workspace, "aligned", "yours", base=models["aligned"].id):
        view = RunReader(workspace).view()
    assert [training.id for training in view.trainings][-1] == models["aligned"].id


def test_a_build_that_is_completed_meanwhile(workspace: Workspace) -> None:
    models = make_models(workspace)
    reader = RunReader(workspace)
    assert len(reader.view().trainings) == 3
    shutil.rmtree(models["aligned"].path)
    assert len(reader.view().trainings) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 7}', '{"stages": [3, {"state": 1}], "pid": "x"}'])
def test_a_broken_progress_file_breaks_nothing(workspace: Workspace, content: str) -> None:
    workspace.root.mkdir()
    (workspace.root / "progress.json").write_text(content, "utf-8")
    assert not RunReader(workspace).view().running


def test_rows_without_numbers_are_left_out(workspace: Workspace) -> None:
    folder = begin(workspace, os.getpid())
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 2.5}\n{"loss": 1}\n', "utf-8")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": Infinity}\n{"step": 4, "loss": -Infinity}\n{"step": 5, "loss": 1e999}\n')
    current = RunReader(workspace).view().current
    assert current is not None
    assert current.points() == [(2, 2.5)]
