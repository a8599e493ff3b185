"""Measuring this machine: the seconds that a real training step takes with the best kernels it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, Precision, use
from ownlm.model.quantised import Scheme, measure_crossover
from ownlm.runtime.device import find_compiler, matmul_gflops
from ownlm.train.objective import Batch
from ownlm.train.optimisers import Rates, build_optimisers
from ownlm.train.pretrain import PretrainObjective


@dataclass(frozen=True)
class Machine:
    """Measured matmul rates in GFLOP/s by precision, and the faster one.

    `packed_rows`: up to how many rows torch's packed kernels for "int8" and "int4" weights are the faster way.
    """

    matmul_gflops: dict[str, float]
    precision: Precision
    compiler: str | None
    packed_rows: dict[str, int] = field(default_factory=dict)


def measure_machine() -> Machine:
    """About three seconds of matrix multiplications. bf16 is taken where it is at least a quarter faster."""
    rates = {
        str(dtype).removeprefix("torch."): round(matmul_gflops("cpu", dtype), 1)
        for dtype in (torch.float32, torch.bfloat16)
    }
    precision: Precision = "bfloat16" if rates["bfloat16"] > 1.25 * rates["float32"] else "float32"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    packed = {name: measure_crossover(Scheme.parse(name), dtype, seconds=0.5).rows for name in ("int8", "int4")}
    return Machine(rates, precision, find_compiler(), packed)


def step_seconds(config: DecoderConfig, kernels: Kernels, rows: int, steps: int = 6) -> float:
    """The lower-quartile time of a full training step on random tokens; whatever must be compiled is compiled first."""
    decoder = use(Decoder(config), kernels)
    initialise(decoder, 0)
    optimisers = build_optimisers(decoder, Rates())
    objective = PretrainObjective(torch.zeros(config.context + 1).numpy(), "", config.context, rows)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocabulary, (rows, config.context + 1), generator=generator)
    batch = Batch({"ids": ids}, weight=float(rows * config.context), tokens=rows * config.context)
    seconds = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        (objective.loss(decoder, batch) / batch.weight).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[2:])[steps // 4]
