import dataclasses
import errno
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from ownlm.model.cross_entropy import linear_cross_entropy
from ownlm.model.decoder import Decoder
from ownlm.model.kernels import Kernels, use
from ownlm.runtime.errors import DiskFull, Interrupted, NumericalError
from ownlm.runtime.signals import Interruption
from ownlm.train.loop import TrainResult, TrainSettings, train
from ownlm.train.objective import Batch
from ownlm.train.optimisers import Rates
from ownlm.train.pretrain import PretrainObjective
from ownlm.train.schedule import Schedule

STEPS = 12
SETTINGS = TrainSettings(Schedule(STEPS), peak_flops=1e9)
IDS = np.asarray(tiny.tokenizer().encode("".join(tiny.CORPUS) * 3), dtype=np.uint16)
OBJECTIVE = PretrainObjective(IDS, "print", context=16, rows=2, micro_batches=2, seed=3)
FLOAT32, BFLOAT16 = Kernels(), Kernels("bfloat16", "tiled")


class Run:
    """A training run in a folder of its own, which can be stopped and gone on with as often as one likes."""

    def __init__(
        self, folder: Path, kernels: Kernels = FLOAT32, objective: Any = OBJECTIVE, settings: TrainSettings = SETTINGS
    ) -> None:
        self.folder, self.state = folder, folder / "run-state"
        self.state.mkdir(parents=True)
        self.kernels, self.objective, self.settings = kernels, objective, settings
        self.decoder = tiny.decoder()
        self.steps_seen: list[int] = []

    def go(self, stop_at: int | None = None) -> TrainResult:
        """Trains from fresh weights or the checkpoint, as a new process does."""
        torch.manual_seed(stop_at or 0)  # what the process did before must not matter
        self.decoder = use(tiny.decoder(), self.kernels)
        interruption = Interruption()

        def watch(row: dict[str, Any]) -> None:
            interruption.requested = row["step"] == stop_at

        def step(number: int, decoder: Decoder) -> None:
            assert decoder is self.decoder
            self.steps_seen.append(number)

        return train(self.decoder, self.objective, self.settings, self.folder, self.state, interruption, step, watch)

    def stop(self, at: int) -> None:
        with pytest.raises(Interrupted, match=f"Stopped at step {at} of {STEPS}") as caught:
            self.go(at)
        assert caught.value.exit_code == 130

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def figures(self) -> list[tuple[Any, ...]]:
        """What must not depend on the clock."""
        keys = ("step", "steps", "loss", "bits_per_byte", "lr", "tokens", "grad_norm")
        return [tuple(row[key] for key in keys) for row in self.metrics()]


def assert_same(one: Decoder, other: Decoder) -> None:
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kernels", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16 tiled"])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(tmp_path: Path, kernels: Kernels) -> None:
    whole, broken = Run(tmp_path / "whole", kernels), Run(tmp_path / "broken", kernels)
    result = whole.go()
    broken.stop(5)
    broken.stop(9)
    resumed = broken.go()
    assert_same(broken.decoder, whole.decoder)
    assert broken.figures() == whole.figures()
    assert [row[0] for row in whole.figures()] == list(range(1, STEPS + 1))
    assert (resumed.steps, resumed.tokens, resumed.loss) == (result.steps, result.tokens, result.loss)
    assert whole.steps_seen == list(range(STEPS + 1))
    assert broken.steps_seen == [*range(5), *range(5, 9), *range(9, STEPS + 1)]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    whole.go()
    killed.stop(5)
    early = {path.name: path.read_bytes() for path in killed.state.iterdir()}
    killed.stop(9)
    # As if the second part had been killed: its metrics are there, the last line half written; its checkpoint is not.
    for path in killed.state.iterdir():
        path.unlink()
    for name, data in early.items():
        (killed.state / name).write_bytes(data)
    with (killed.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')
    killed.go()
    assert_same(killed.decoder, whole.decoder)
    assert killed.figures() == whole.figures()


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, harm: str) -> None:
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    whole.go()
    run.stop(5)
    run.stop(9)
    first, newest = sorted(run.state.glob("checkpoint-*"))
    assert "00000005" in first.name
    data = bytearray(newest.read_bytes())
    data[-100] ^= 0xFF
    newest.write_bytes({"cut": data[:-50], "changed": data, "empty": b""}[harm])
    run.steps_seen.clear()
    run.go()
    assert run.steps_seen[0] == 5
    assert_same(run.decoder, whole.decoder)
    assert run.figures() == whole.figures()


def test_checkpoints_are_written_by_the_clock_and_two_are_kept(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", settings=dataclasses.replace(SETTINGS, checkpoint_seconds=0.0))
    run.go()
    names = [path.name for path in sorted(run.state.iterdir())]
    assert names == ["checkpoint-00000010.safetensors", "checkpoint-00000011.safetensors"]


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    whole.go()
    run.stop(5)
    kept = {path.name: path.read_bytes() for path in run.state.iterdir()}
    replace = "ownlm.runtime.atomic.os.replace"

    def full(source: object, target: object) -> None:
        if "checkpoint" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(str(source)).rename(str(target))

    with monkeypatch.context() as patch:
        patch.setattr(replace, full)
        with pytest.raises(DiskFull, match="is full"):
            run.go(9)
    assert {path.name: path.read_bytes() for path in run.state.iterdir()} == kept
    run.go()
    assert_same(run.decoder, whole.decoder)
    assert run.figures() == whole.figures()


class Poisoned:
    """The objective, with a loss that is not a number, or a gradient without end, at some steps."""

    def __init__(self, *bad: int, gradient_only: bool = False) -> None:
        self.bad, self.step, self.gradient_only = bad, -1, gradient_only

    def batches(self, step: int) -> list[Batch]:
        self.step = step
        return OBJECTIVE.batches(step)

    def loss(self, decoder: Decoder, batch: Batch) -> torch.Tensor:
        loss = OBJECTIVE.loss(decoder, batch)
        if self.step not in self.bad:
            return loss
        # A square root is finite at 0, its slope is not.
        weight = decoder.norm.weight
        return loss + (weight - weight.detach()).sqrt().sum() if self.gradient_only else loss * math.nan

    def describe(self, loss: float) -> dict[str, float]:
        return OBJECTIVE.describe(loss)


@pytest.mark.parametrize("gradient_only", [False, True])
def test_a_step_with_non_finite_numbers_is_skipped_and_counted(tmp_path: Path, gradient_only: bool) -> None:
    run = Run(tmp_path / "run", objective=Poisoned(3, 4, gradient_only=gradient_only))
    result = run.go()
    assert (result.skipped, result.steps) == (2, STEPS)
    assert math.isfinite(result.loss)
    assert all(bool(parameter.isfinite().all()) for parameter in run.decoder.parameters())
    assert not torch.equal(run.decoder.head, tiny.decoder().head)


@pytest.mark.parametrize("gradient_only", [False, True])
def test_bad_steps_leave_the_weights_alone(tmp_path: Path, gradient_only: bool) -> None:
    settings = dataclasses.replace(SETTINGS, schedule=Schedule(9))
    run = Run(tmp_path / "run", objective=Poisoned(*range(9), gradient_only=gradient_only), settings=settings)
    assert run.go().skipped == 9
    assert_same(run.decoder, tiny.decoder())


@pytest.mark.parametrize("stops", [(), (4,), (3, 8)])
def test_too_many_bad_steps_in_a_row_end_the_run(tmp_path: Path, stops: tuple[int, ...]) -> None:
    # Stopping and going on in between does not hide them.
    run = Run(tmp_path / "run", objective=Poisoned(*range(1, STEPS)))
    for at in stops:
        run.stop(at)
    with pytest.raises(NumericalError, match=r"10 steps in a row, up to step 11\. Start again with another seed"):
        run.go()


def strict(line: str) -> dict[str, Any]:
    """A line of JSON as other programs read it: without Python's NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return found


@pytest.mark.parametrize("gradient_only", [False, True])
def test_numbers_that_are_none_are_null_in_the_metrics(tmp_path: Path, gradient_only: bool) -> None:
    run = Run(tmp_path / "run", objective=Poisoned(3, 4, 10, 11, gradient_only=gradient_only))
    run.stop(4)
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    assert strict(lines[3])["grad_norm"] is None
    assert (strict(lines[3])["loss"] is None) != gradient_only
    # An earlier version wrote what is no JSON; it is read, and written anew.
    path.write_text("\n".join([*lines[:3], lines[3].replace("null", "NaN")]) + "\n")
    assert run.go().skipped == 4
    rows = [strict(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows if row["grad_norm"] is None] == [4, 5, 11, 12]


def test_a_resumed_run_ends_with_the_loss_of_an_undisturbed_one(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, schedule=Schedule(40))
    whole, broken = (Run(tmp_path / name, objective=Poisoned(38), settings=settings) for name in ("whole", "broken"))
    expected = whole.go()
    with pytest.raises(Interrupted):
        broken.go(39)
    assert broken.go().loss == expected.loss


class Weighted:
    """Rows of one batch with unequal weights, in one or several micro-batches that end at `cuts`."""

    def __init__(self, *cuts: int) -> None:
        self.ends = [0, *cuts, 6]

    def batches(self, step: int) -> list[Batch]:
        ids = tiny.random_ids(6, 17, seed=step)
        weights = torch.tensor([1.0, 0.5, 0.25, 3.0, 1.0, 2.0])[:, None].expand(6, 16).clone()
        weights[:, ::3] = 0
        parts = [slice(begin, end) for begin, end in pairwise(self.ends)]
        return [Batch({"ids": ids[p], "weights": weights[p]}, float(weights[p].sum()), ids[p].numel()) for p in parts]

    def loss(self, decoder: Decoder, batch: Batch) -> torch.Tensor:
        ids = batch.tensors["ids"]
        hidden = decoder.hidden(ids[:, :-1]).flatten(0, 1)
        return linear_cross_entropy(hidden, decoder.head, ids[:, 1:].flatten(), batch.tensors["weights"].flatten())

    def describe(self, loss: float) -> dict[str, float]:
        return {"bits_per_byte": loss}


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 5)])
def test_micro_batches_add_up_to_the_whole_batch(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    settings = dataclasses.replace(SETTINGS, schedule=Schedule(3))
    whole = Run(tmp_path / "whole", objective=Weighted(), settings=settings)
    parts = Run(tmp_path / "parts", objective=Weighted(*cuts), settings=settings)
    whole.go()
    parts.go()
    for one, other in zip(whole.metrics(), parts.metrics(), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    for (name, a), (_, b) in zip(whole.decoder.named_parameters(), parts.decoder.named_parameters(), strict=True):
        start = dict(tiny.decoder().named_parameters())[name]
        assert float((a - b).detach().norm()) < 0.01 * float((a - start).detach().norm()), name


def test_training_learns_and_tells_how_it_goes(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", settings=dataclasses.replace(SETTINGS, schedule=Schedule(60)))
    result = run.go()
    rows = run.metrics()
    first, last = (sum(row["loss"] for row in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last < 0.7 * first
    assert result.loss == pytest.approx(sum(row["loss"] for row in rows[-3:]) / 3)
    assert result.tokens == rows[-1]["tokens"] == 60 * 2 * 2 * 16
    assert rows[-1]["remaining"] == 0 and rows[0]["remaining"] > 0
    assert all(row["tokens_per_second"] > 0 and row["utilisation"] >= 0 for row in rows)
    flops = tiny.config().training_flops_per_token(16)
    assert result.utilisation == pytest.approx(result.tokens * flops / result.seconds / 1e9)
    assert [row["lr"] for row in rows[:2]] == pytest.approx([Rates().matrices / 2, Rates().matrices])


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.stop(STEPS)
    before = run.figures()
    assert run.go().steps == STEPS
    assert run.figures() == before
