"""Does a run that was killed twenty times end as an undisturbed one?

    python benchmarks/pretrain_resume.py [--quick] [--kills 20]

A process trains a small decoder with gradient accumulation, a batch ramp, documents kept apart and one spike.
It is killed (SIGKILL, or TerminateProcess on Windows) at random moments, every fifth time while it starts, and started
again. Counted are the steps that are missing, repeated or different in the metrics, and the final weights that differ,
against a run that nobody disturbed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import Figure, arguments, report, run_child, versions

FIGURES = ("loss", "lr", "grad_norm", "tokens", "skipped")


def training(folder: str, steps: int) -> dict[str, float]:
    """Trains in `folder`, or goes on there; writes the final weights to `weights.safetensors`."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from torch import Tensor

    from ownlm.model.config import DecoderConfig
    from ownlm.model.decoder import Decoder, initialise
    from ownlm.model.kernels import Kernels, use
    from ownlm.runtime.signals import Interruption
    from ownlm.train.batching import BatchRamp
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.objective import Batch
    from ownlm.train.pretrain import PretrainObjective
    from ownlm.train.schedule import Schedule
    from ownlm.train.spikes import SpikeRule

    class Spiking(PretrainObjective):
        """With a loss far above all others at two thirds of the steps."""

        def batches(self, step: int) -> list[Batch]:
            found = super().batches(step)
            return [Batch({**each.tensors, "scale": torch.tensor(50.0 if step == 2 * steps // 3 else 1.0)},
                          each.weight, each.tokens) for each in found]  # fmt: skip

        def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
            return super().loss(decoder, batch) * batch.tensors["scale"]

    torch.set_num_threads(1)
    decoder = use(Decoder(DecoderConfig(256, 3, 64, 2, 1, 32, 192, 64)), Kernels("float32", "tiled"))
    initialise(decoder, 0)
    ids = np.random.default_rng(0).integers(0, 256, 40_000, dtype=np.uint16)
    starts = np.arange(0, 40_001, 100)
    objective = Spiking(ids, "random", 64, 4, 4, starts=starts, mask_documents=True, ramp=BatchRamp(steps // 4, 2))
    settings = TrainSettings(Schedule(steps), checkpoint_seconds=0.3, spikes=SpikeRule())
    place = Path(folder)
    result = train(decoder, objective, settings, place, place / "run-state", Interruption())
    save_file({name: each.detach() for name, each in decoder.named_parameters()}, place / "weights.safetensors")
    return {"steps": result.steps, "skipped": result.skipped}


def start(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """The training in a process of its own."""
    task = json.dumps({"task": "training", "folder": str(folder), "steps": steps})
    return subprocess.Popen([sys.executable, __file__, "--child", task], stdout=subprocess.DEVNULL)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def done(folder: Path) -> int:
    """How many steps the metrics tell of."""
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def main() -> int:
    """One undisturbed run, and one that is killed again and again."""
    asked = arguments(__doc__ or "", kills=(int, 20, "how often"), seed=(int, 0, "of the moments"))
    if asked.child:
        run_child(asked.child, {"training": training})
        return 0
    kills = max(1, asked.kills // 4) if asked.quick else asked.kills
    steps = 60 * kills
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        whole.mkdir(), broken.mkdir()
        if start(whole, steps).wait():
            raise RuntimeError("The undisturbed run failed.")
        moments = random.Random(asked.seed)
        targets = sorted(moments.sample(range(1, steps), kills))
        for number, target in enumerate(targets, 1):
            process = start(broken, steps)
            if number % 5 == 0:
                time.sleep(moments.uniform(0.0, 4.0))
            while number % 5 and process.poll() is None and done(broken) < target:
                time.sleep(0.005)
            time.sleep(moments.uniform(0.0, 0.1))
            if process.poll() is not None:
                raise RuntimeError("The run ended before it could be killed.")
            process.kill()
            process.wait()
            print(f"kill {number} of {kills} at about step {done(broken)} of {steps}", flush=True)
        if start(broken, steps).wait():
            raise RuntimeError("The run that was killed could not go on.")
        one, other = rows(whole), rows(broken)
        missing = steps - len({row["step"] for row in other})
        repeated = len(other) - len({row["step"] for row in other})
        pairs = zip(one, other, strict=False)
        different = sum(any(a.get(key) != b.get(key) for key in FIGURES) for a, b in pairs)
        weights = (whole / "weights.safetensors").read_bytes() != (broken / "weights.safetensors").read_bytes()
        spikes = sum("skipped" in row for row in one)
    figures = [
        Figure("kills", kills, "", kills),
        Figure("steps missing", missing, "", 0, at_most=True),
        Figure("steps repeated", repeated, "", 0, at_most=True),
        Figure("steps that differ", different, "", 0, at_most=True),
        Figure("final weights that differ", float(weights), "", 0, at_most=True),
        Figure("steps left out as spikes", spikes, "", 1),
    ]
    return report("pretrain_resume", figures, versions("torch"), 1)


if __name__ == "__main__":
    raise SystemExit(main())
