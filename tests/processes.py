"""Trains a tiny model in the processes that torchrun starts: `torchrun ... tests/processes.py JOBS.json`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, use
from ownlm.model.rope import Rope
from ownlm.runtime.errors import Interrupted
from ownlm.runtime.signals import Interruption, catch_interrupts
from ownlm.train.distributed import gathered, launched, shard
from ownlm.train.exchange import alike, held
from ownlm.train.loop import TrainSettings, train
from ownlm.train.muon import Muon
from ownlm.train.optimisers import Rates
from ownlm.train.pretrain import PretrainObjective
from ownlm.train.schedule import Schedule
from ownlm.train.world import World

CONFIG = DecoderConfig(
    vocabulary=96, layers=2, width=32, heads=4, kv_heads=2, head_dim=8, ffn=48, context=16, rope=Rope(1000.0)
)
STEPS = 30
TEXT = "".join(f"{a} and {b} make {a + b}; {b} times {a} are {a * b}.\n" for a in range(12) for b in range(12))
IDS = np.asarray([ord(letter) % 96 for letter in TEXT], dtype=np.uint16)


@dataclass(frozen=True)
class Job:
    """One run in `folder`: 8 windows a step over all processes, stopped after `stop` steps or by the last rank's death
    after `kill`. It goes on from a copy of what another run left in `after`.
    """

    folder: str
    after: str = ""
    steps: int = STEPS
    tensor_parallel: int = 1
    stop: int | None = None
    kill: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)
    checkpoint_seconds: float = 1e9


def work(job: Job, world: World, interruption: Interruption) -> Decoder | None:
    """Does the job as one of the processes of `world`; the whole model, in the main one."""
    folder = Path(job.folder)
    changes = job.config
    if "experts" in changes:
        changes = changes | {"experts": Experts(**changes["experts"] | {"layers": tuple(changes["experts"]["layers"])})}
    decoder = Decoder(CONFIG.with_(**changes))
    initialise(decoder, 0)
    shard(use(decoder, Kernels(**job.kernels)), world)
    objective = PretrainObjective(IDS, "print", context=16, rows=2, micro_batches=4, seed=3, share=world.share)
    rates = Rates(**{"embeddings": 0.004, "head": 0.004, "vectors": 0.004, "matrices": 0.002} | job.rates)
    settings = TrainSettings(Schedule(job.steps), rates, checkpoint_seconds=job.checkpoint_seconds)

    def look(row: dict[str, Any]) -> None:
        interruption.requested |= row["step"] == job.stop

    def before(step: int, _: Decoder) -> None:
        marker = folder / "killed"
        if step == job.kill and world.rank == world.size - 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        train(decoder, objective, settings, folder, folder / "state", interruption, before, look, world=world)
    except Interrupted:
        if interruption.exit_code == 143:
            raise
    interruption.requested = False
    return gathered(decoder, world)


def check_muon(world: World) -> None:
    """Muon on matrices that are divided among the processes gives the numbers of one process."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = world.mesh["data"]  # type: ignore[attr-defined]
    shapes = [(12, 8), (5, 7), (12, 8), (1, 6), (5, 7), (12, 8)]
    placed = [Shard(0)] * 5 + [Replicate()]
    for options in ({}, {"neuron_beta": 0.9, "cautious": True, "weight_decay": 0.3}):
        torch.manual_seed(1)
        whole = [torch.nn.Parameter(torch.randn(*shape)) for shape in shapes]
        parts = [
            torch.nn.Parameter(distribute_tensor(each.detach().clone(), mesh, [where]))
            for each, where in zip(whole, placed, strict=True)
        ]
        muons = [Muon(each, 0.1, dtype=torch.float32, **options) for each in (whole, parts)]  # type: ignore[arg-type]
        for _ in range(3):
            for one, part, where in zip(whole, parts, placed, strict=True):
                one.grad = torch.randn(one.shape)
                part.grad = distribute_tensor(one.grad.clone(), mesh, [where])
            for muon in muons:
                muon.step()
        assert [len(group) for group in alike(parts)] == [5, 1] and len(alike(whole)) == 1
        for one, part in zip(whole, parts, strict=True):
            again = held(one.detach(), part)
            assert type(again) is type(part.detach()) and torch.equal(again.full_tensor(), one)  # type: ignore[attr-defined]
            torch.testing.assert_close(part.full_tensor(), one, rtol=0, atol=1e-6)  # type: ignore[attr-defined]


def start(jobs: Sequence[Job], folder: Path, processes: int, *options: str) -> subprocess.Popen[str]:
    """torchrun on this machine, with `options` of its own."""
    path = folder / "jobs.json"
    path.write_text(json.dumps([asdict(job) for job in jobs]))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [*command, __file__, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-6000:]
    return output


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(folder: Path) -> torch.Tensor:
    """Loss and gradient norm of every step `(steps, 2)`."""
    found = rows(folder)
    assert [row["step"] for row in found] == list(range(1, len(found) + 1))
    return torch.tensor([[row["loss"], row["grad_norm"]] for row in found], dtype=torch.float64)


def main() -> None:
    """What each process does."""
    torch.set_num_threads(1)
    jobs = [Job(**job) for job in json.loads(Path(sys.argv[1]).read_text())]
    with catch_interrupts() as interruption:
        try:
            check_muon(launched())
            for job in jobs:
                world = launched(job.tensor_parallel)
                if world.main and job.after:
                    shutil.copytree(job.after, job.folder)
                elif world.main:
                    Path(job.folder).mkdir(parents=True, exist_ok=True)
                world.any(False)
                (Path(job.folder) / f"pid-{world.rank}").write_text(str(os.getpid()))
                model = work(job, world, interruption)
                if model is not None:
                    torch.save(model.state_dict(), Path(job.folder) / "model.pt")
        except Interrupted as stopped:
            (Path(job.folder) / f"exit-{world.rank}").write_text(str(stopped.exit_code))
            world.close()
            sys.exit(stopped.exit_code)
    world.close()


if __name__ == "__main__":
    main()
