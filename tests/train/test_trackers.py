"""TensorBoard, W&B and MLflow: each is tested where its package is installed; what they share, everywhere."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ownlm.runtime.errors import OwnLMError
from ownlm.train import trackers
from ownlm.train.trackers import PACKAGES, flat, numbers, open_trackers, require_trackers

RUN = "first-model-base-abc123"
SETTINGS = {"steps": 20, "rates": {"matrices": 0.02, "head": None}, "kind": "wsd", "masked": True}


@pytest.fixture(autouse=True)
def _no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "false" if name.startswith("WANDB") else "true")


def rows(first: int, last: int) -> list[dict[str, Any]]:
    """Rows as the loop gives them; step 3 is not finite, step 4 was left out."""
    found = [
        {"step": step, "steps": 20, "loss": 5 / step, "lr": 0.1, "grad_norm": math.nan if step == 3 else 1.0,
         "utilisation": None, "tokens": 10 * step, "remaining": 3.0}
        for step in range(first, last + 1)
    ]  # fmt: skip
    return [row | ({"skipped": "spike"} if row["step"] == 4 else {}) for row in found]


def track(name: str, folder: Path) -> None:
    """A run that is cut off after step 10 and goes on from its checkpoint at step 5."""
    for first, last in ((1, 10), (6, 20)):
        [tracker] = open_trackers([name], folder, RUN, SETTINGS)
        for row in rows(first, last):
            tracker(row)
        tracker.close()


# ---- the services


def scalars(folder: Path, event: Any) -> dict[str, dict[int, float]]:
    """Tag -> step -> value as TensorBoard shows them: the start of a session hides what came after it before."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            record = event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16
            if record.session_log.status == record.session_log.START:
                found = {tag: {s: v for s, v in values.items() if s < record.step} for tag, values in found.items()}
            for value in record.summary.value:
                if value.HasField("simple_value"):
                    assert record.step not in found.setdefault(value.tag, {}), "a step is shown once"
                    found[value.tag][record.step] = value.simple_value
    return found


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    track("tensorboard", tmp_path)
    found = scalars(tmp_path / "tensorboard" / RUN, event_pb2.Event)
    assert sorted(found["loss"]) == list(range(1, 21))
    assert found["loss"][20] == pytest.approx(0.25)
    assert sorted(found["grad_norm"]) == [1, 2, *range(4, 21)]
    assert found["skipped"] == {4: 1.0}
    assert set(found) == {"loss", "lr", "grad_norm", "tokens", "skipped"}


def test_wandb_is_offline_without_an_account(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    track("wandb", tmp_path)
    runs = sorted((tmp_path / "wandb").glob(f"offline-run-*-{RUN}"))
    assert runs
    assert all(next(run.glob("*.wandb")).stat().st_size > 100 for run in runs)


def test_mlflow(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    track("mlflow", tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    [run] = client.search_runs([client.get_experiment_by_name("ownlm").experiment_id])
    assert (run.info.run_name, run.info.status) == (RUN, "FINISHED")
    assert run.data.params == {"steps": "20", "rates.matrices": "0.02", "kind": "wsd", "masked": "True"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == list(range(1, 21)), "each step once, though five were made twice"
    assert history[-1].value == 0.25
    assert [each.step for each in client.get_metric_history(run.info.run_id, "skipped")] == [4]


# ---- what they share


def test_unknown_names_and_missing_packages_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for ask in (require_trackers, lambda names: open_trackers(names, tmp_path, RUN, {})):
        with pytest.raises(OwnLMError, match="no tracker 'neptune'. Choose from tensorboard, wandb, mlflow"):
            ask(["tensorboard", "neptune"])
        with pytest.raises(OwnLMError, match="pip install wandb tensorboardX$"):
            ask(["wandb", "tensorboard"])
    require_trackers([])
    assert open_trackers([], tmp_path, RUN, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_rows_become_finite_numbers() -> None:
    row = {"step": 4, "steps": 9, "remaining": 1.0, "loss": math.inf, "lr": 1, "utilisation": None, "skipped": "spike",
           "flag": True}  # fmt: skip
    assert numbers(row) == {"lr": 1.0, "skipped": 1.0}


def test_settings_become_flat() -> None:
    assert flat({**SETTINGS, "path": Path("a")}) == {
        "steps": 20, "rates.matrices": 0.02, "kind": "wsd", "masked": True, "path": "a",
    }  # fmt: skip


class Recorder:
    """Stands in for tensorboardX's writer; fails at step `broken`."""

    made: list[Recorder] = []
    broken = 0

    def __init__(self, folder: str, purge_step: int, flush_secs: int, filename_suffix: str) -> None:
        self.purge_step, self.seen, self.closed = purge_step, dict[tuple[str, int], float](), False
        Recorder.made.append(self)

    def add_text(self, tag: str, text: str, step: int) -> None:
        assert "| rates.matrices | 0.02 |" in text

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        if step == Recorder.broken:
            raise OSError("no space\nleft")
        self.seen[tag, step] = value

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Recorder]]:
    module = ModuleType(PACKAGES["tensorboard"])
    module.SummaryWriter = Recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name == "tensorboardX" or None)
    Recorder.made, Recorder.broken = [], 0
    yield Recorder.made


def test_a_resumed_run_hides_the_steps_that_it_makes_again(tmp_path: Path, recorders: list[Recorder]) -> None:
    track("tensorboard", tmp_path)
    assert [each.purge_step for each in recorders] == [1, 6]
    assert all(each.closed for each in recorders)
    assert {step for _, step in recorders[1].seen} == set(range(6, 21))


def test_a_tracker_that_fails_is_told_once_and_left_out(tmp_path: Path, recorders: list[Recorder]) -> None:
    told: list[str] = []
    Recorder.broken = 7
    [tracker] = open_trackers(["tensorboard", "tensorboard"], tmp_path, RUN, SETTINGS, told.append)
    for row in rows(1, 10):
        tracker(row)
    tracker.close()
    assert len(told) == 1
    assert "tensorboard failed and is left out from here on (no space)" in told[0]
    assert max(step for _, step in recorders[0].seen) == 6


def test_a_tracker_that_cannot_be_opened_is_one_sentence_and_closes_the_others(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    module = ModuleType("wandb")
    module.Settings = lambda **_: None  # type: ignore[attr-defined]

    def refuse(**_: Any) -> None:
        raise RuntimeError("no room\nat all")

    module.init = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(trackers._TensorBoard, "close", lambda self: closed.append(True))
    with pytest.raises(OwnLMError, match="^The tracker wandb could not be opened: no room$"):
        open_trackers(["tensorboard", "wandb"], tmp_path, RUN, SETTINGS)
    assert closed == [True]


@pytest.mark.parametrize(
    ("variables", "text", "mode"),
    [({}, "", "offline"), ({"WANDB_API_KEY": "k"}, "", "online"), ({"WANDB_MODE": "disabled"}, "", "disabled"),
     ({}, "machine api.wandb.ai login user password secret", "online"),
     ({}, "machine example.org login user password secret", "offline"),
     ({"WANDB_BASE_URL": "https://wandb.example.org/"}, "machine wandb.example.org login u password p", "online"),
     ({}, "machine", "offline")],
)  # fmt: skip
def test_wandb_sends_nothing_unless_the_user_has_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str, mode: str
) -> None:
    asked: list[dict[str, Any]] = []

    class Run:
        step = 0

        def finish(self) -> None:
            asked.append({"finished": True})

    def init(**options: Any) -> Run:
        asked.append(options)
        return Run()

    module = ModuleType("wandb")
    module.Settings = lambda **options: options  # type: ignore[attr-defined]
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if text:
        netrc = tmp_path / "netrc"
        netrc.write_text(text + "\n", "utf-8")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
    [tracker] = open_trackers(["wandb"], tmp_path, RUN, SETTINGS)
    tracker.close()
    assert asked[0]["mode"] == mode
    assert asked[0]["resume"] == ("allow" if mode == "online" else None)
    assert asked[0]["settings"]["disable_code"] and asked[0]["settings"]["disable_git"]
    assert asked[1] == {"finished": True}
