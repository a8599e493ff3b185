"""What is asked of a run while it trains, and that a resumed run does the same again."""

import dataclasses
import errno
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import DiskFull, Interrupted, NumericalError
from ownlm.runtime.signals import Interruption
from ownlm.train import checkpoint, loop
from ownlm.train.control import Finish, More, Wish
from ownlm.train.loop import TrainResult, TrainSettings, train
from ownlm.train.objective import Batch
from ownlm.train.pretrain import PretrainObjective
from ownlm.train.schedule import Schedule
from ownlm.train.spikes import SpikeRule
from ownlm.train.turns import Change, read_changes, write_changes

IDS = np.asarray(tiny.tokenizer().encode("".join(tiny.CORPUS) * 3), dtype=np.uint16)
OBJECTIVE = PretrainObjective(
    IDS, "print", context=16, rows=2, seed=3, starts=np.array([0, 90, len(IDS)]), sha256=["aa", "bb"]
)


class Asked:
    """Gives its wishes at given calls, the first being 0."""

    def __init__(self, **wishes: Wish) -> None:
        self.wishes, self.calls = {int(name[2:]): wish for name, wish in wishes.items()}, -1

    def asked(self) -> list[Wish]:
        self.calls += 1
        return [self.wishes[self.calls]] if self.calls in self.wishes else []


def run(
    folder: Path,
    control: Any = None,
    stop_at: int | None = None,
    objective: Any = OBJECTIVE,
    steps: int = 40,
    **more: Any,
) -> tuple[TrainResult, Decoder]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(stop_at or 0)
    decoder, interruption = tiny.decoder(), Interruption()

    def watch(row: dict[str, Any]) -> None:
        interruption.requested = row["step"] == stop_at

    settings = TrainSettings(Schedule(steps), spikes=SpikeRule(window=8), **more)
    result = train(
        decoder, objective, settings, folder, folder / "run-state", interruption, on_metrics=watch, control=control
    )
    return result, decoder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def figures(folder: Path) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in ("step", "steps", "loss", "lr", "grad_norm", "tokens")) for row in rows(folder)]


def test_finish_now_ends_with_a_fallen_rate_within_a_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop._Run, "_awake", lambda self, seconds: 1.0)
    result, _ = run(tmp_path, Asked(at20=Finish()))
    assert result.steps == 22
    assert [row["steps"] for row in rows(tmp_path)] == [40] * 20 + [22] * 2
    assert rows(tmp_path)[-1]["lr"] == pytest.approx(rows(tmp_path)[20]["lr"] / 2)
    assert rows(tmp_path)[-1]["remaining"] == 0


def test_more_time_becomes_steps_at_the_pace_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop._Run, "_awake", lambda self, seconds: 2.0)
    result, _ = run(tmp_path, Asked(at10=More(16.0)))
    assert result.steps == 48


def test_the_first_step_compiles_and_tells_nothing_of_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow:
        def batches(self, step: int) -> list[Batch]:
            clock[0] += 20.0 if step == 0 else 0.5
            return OBJECTIVE.batches(step)

        def __getattr__(self, name: str) -> Any:
            return getattr(OBJECTIVE, name)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    assert run(tmp_path / "more", Asked(at0=More(5.0)), objective=Slow())[0].steps == 50
    assert read_changes(tmp_path / "more" / "run-state") == [Change(2, 10)]


def test_a_tenth_is_one_of_the_time_where_steps_have_become_slower() -> None:
    assert Change.of(Finish(), 100, seconds=100.0, pace=1.0) == Change(100, fall=10)
    assert Change.of(Finish(), 100, seconds=100.0, pace=2.0) == Change(100, fall=5)
    assert Change.of(Finish(), 100, seconds=100.0, pace=0.1) == Change(100, fall=10)


def test_a_wish_that_finds_no_room_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    write, step = loop.write_changes, [0]

    def full(folder: Path, changes: Any) -> None:
        if step[0] < 25:
            raise DiskFull("no room")
        write(folder, changes)

    monkeypatch.setattr(loop, "write_changes", full)
    settings = TrainSettings(Schedule(40), spikes=SpikeRule(window=8))
    result = train(
        tiny.decoder(), OBJECTIVE, settings, tmp_path, tmp_path / "run-state", Interruption(),
        on_step=lambda at, _: step.__setitem__(0, at), control=Asked(at20=Finish()), warn=warnings.append,
    )  # fmt: skip
    assert result.steps == 26 + 2
    assert len(warnings) == 1 and "takes effect when it can be written down" in warnings[0]


def test_no_checkpoint_is_ahead_of_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    full = [False]
    flush = loop.JsonLog.flush
    monkeypatch.setattr(loop.JsonLog, "flush", lambda log: not full[0] and flush(log))

    def watch(row: dict[str, Any]) -> None:
        full[0] = 10 <= row["step"] < 20
        kept = checkpoint.checkpoints(tmp_path / "run-state")
        assert not full[0] or int(kept[-1].stem.rpartition("-")[2]) <= 10

    settings = TrainSettings(Schedule(30), checkpoint_seconds=0.0)
    train(
        tiny.decoder(), OBJECTIVE, settings, tmp_path, tmp_path / "run-state", Interruption(), on_metrics=watch,
        warn=warnings.append,
    )  # fmt: skip
    assert len(warnings) == 10
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 31))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=10)
    for path in checkpoint.checkpoints(tmp_path / "run-state"):
        path.write_bytes(path.read_bytes()[:-1])
    warnings: list[str] = []
    settings = TrainSettings(Schedule(40), spikes=SpikeRule(window=8))
    train(tiny.decoder(), OBJECTIVE, settings, tmp_path, tmp_path / "run-state", Interruption(), warn=warnings.append)
    assert len(warnings) == 1 and "checkpoint-00000010.safetensors is damaged" in warnings[0]


@pytest.mark.parametrize("wish", [Finish(), More(3.0)])
@pytest.mark.parametrize("stop", [15, 21])
def test_a_resumed_run_turns_at_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: Wish, stop: int
) -> None:
    monkeypatch.setattr(loop._Run, "_awake", lambda self, seconds: 0.5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(whole, Asked(at20=wish))
    with pytest.raises(Interrupted):
        run(broken, Asked(at20=wish), stop_at=stop)
    if stop == 15:  # as if it had been killed after the turn, and its last checkpoint were from before
        write_changes(broken / "run-state", read_changes(whole / "run-state"))
    monkeypatch.setattr(loop._Run, "_awake", lambda self, seconds: 99.0)  # the pace is another now
    found = run(broken, Asked())
    assert figures(broken) == figures(whole)
    assert found[0].steps == expected[0].steps
    for one, other in zip(found[1].parameters(), expected[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_changes_are_kept_and_half_a_line_is_none(tmp_path: Path) -> None:
    changes = [Change(3), Change(9, 40)]
    write_changes(tmp_path, changes)
    assert read_changes(tmp_path) == changes
    with (tmp_path / "turns.jsonl").open("a") as file:
        file.write('{"step": 1')
    assert read_changes(tmp_path) == changes
    assert read_changes(tmp_path / "nowhere") == []


def test_time_asleep_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    objective = dataclasses.replace(OBJECTIVE)

    class Slept:
        def batches(self, step: int) -> list[Batch]:
            clock[0] += 3600.0 if step == 12 else 1.0
            return objective.batches(step)

        def __getattr__(self, name: str) -> Any:
            return getattr(objective, name)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    assert run(tmp_path, objective=Slept(), steps=20)[0].seconds == pytest.approx(20)


class Wild:
    """The objective with losses far above all others at some steps."""

    def __init__(self, *bad: int) -> None:
        self.bad, self.step = bad, -1

    def batches(self, step: int) -> list[Batch]:
        self.step = step
        return OBJECTIVE.batches(step)

    def loss(self, decoder: Decoder, batch: Batch) -> torch.Tensor:
        return OBJECTIVE.loss(decoder, batch) * (50 if self.step in self.bad else 1)

    def describe(self, loss: float) -> dict[str, float]:
        return OBJECTIVE.describe(loss)

    def documents(self, step: int) -> list[str]:
        return OBJECTIVE.documents(step)


def test_a_spike_is_skipped_counted_and_its_documents_are_kept(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "whole", objective=Wild(20, 30))
    assert result.skipped == 2
    skipped = [json.loads(line) for line in (tmp_path / "whole" / "skipped.jsonl").read_text().splitlines()]
    assert [(row["step"], row["skipped"], row["documents"]) for row in skipped] == [
        (step + 1, "spike", OBJECTIVE.documents(step)) for step in (20, 30)
    ]
    assert [row["step"] for row in rows(tmp_path / "whole") if "skipped" in row] == [21, 31]
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", objective=Wild(20, 30), stop_at=25)
    run(tmp_path / "broken", objective=Wild(20, 30))
    assert figures(tmp_path / "broken") == figures(tmp_path / "whole")


def test_spikes_without_end_stop_the_run_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(
        NumericalError, match=r"far above all before in 10 steps in a row.*skipped\.jsonl lists the docu"
    ):
        run(tmp_path, objective=Wild(*range(15, 40)))


def test_too_little_room_is_noticed_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(3 * 4 * parameter.numel() for parameter in tiny.decoder().parameters())
    usage = type("Usage", (), {"free": 2 * size - 1})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="needs room for two checkpoints"):
        run(tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    usage.free += 1
    run(tmp_path)


def test_a_disk_that_fills_up_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole")
    warnings: list[str] = []
    room, write = [False], Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "checkpoint" in path.name and not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    folder = tmp_path / "run"
    folder.mkdir()

    def watch(row: dict[str, Any]) -> None:
        room[0] = row["step"] in (5, 6) or row["step"] > 30

    settings = TrainSettings(Schedule(40), checkpoint_seconds=0.0, spikes=SpikeRule(window=8))
    state = folder / "run-state"
    train(tiny.decoder(), OBJECTIVE, settings, folder, state, Interruption(), on_metrics=watch, warn=warnings.append)
    assert figures(folder) == figures(tmp_path / "whole")
    assert len(warnings) == 4 + 24 and "Training goes on" in warnings[0]


def test_metrics_that_found_no_room_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownlm.train.metrics import JsonLog

    log = JsonLog(tmp_path / "metrics.jsonl", 0)
    log.add({"step": 1, "loss": 1.0})
    opened = Path.open

    def full(path: Path, *given: Any, **named: Any) -> Any:
        file = opened(path, *given, **named)
        file.seek(0, 2)
        file.write(b'{"step": 2, "lo')  # what still found room
        file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        log.add({"step": 2, "loss": math.nan})
    log.add({"step": 3, "loss": 3.0})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    again = JsonLog(tmp_path / "metrics.jsonl", 2)
    assert [row["step"] for row in again.rows] == [1, 2]


def test_what_is_done_again_is_said(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop_at=10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.writelines(f'{{"step": {step}, "loss": 1.0, "grad_norm": 1.0}}\n' for step in (11, 12, 13))
    said: list[str] = []
    settings = TrainSettings(Schedule(40), spikes=SpikeRule(window=8))
    train(tiny.decoder(), OBJECTIVE, settings, tmp_path, tmp_path / "run-state", Interruption(), say=said.append)
    assert said == ["Goes on from the checkpoint of step 10; 3 steps after it are done again."]
