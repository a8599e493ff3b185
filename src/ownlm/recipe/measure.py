"""Measuring this machine: the seconds that a real training step takes with the best kernels it has."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, Precision, use
from ownlm.model.quantised import Scheme, measure_crossover
from ownlm.recipe.shapes import LADDER
from ownlm.runtime.device import find_compiler, matmul_gflops
from ownlm.runtime.errors import OwnLMError
from ownlm.train.objective import Batch
from ownlm.train.optimisers import Rates, build_optimisers
from ownlm.train.pretrain import PretrainObjective

DEVICES = ("cpu", "cuda", "mps")
_CONTAINER_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        "total_inactive_file",
    ),
)
"""The files of control groups, version 2 and 1, and what `memory.stat` beside them calls cache that can be dropped."""


@dataclass(frozen=True)
class Machine:
    """Measured matmul rates in GFLOP/s by precision, and the faster one.

    `packed_rows`: up to how many rows torch's packed kernels for "int8" and "int4" weights are the faster way.
    `memory`: bytes that training may take at the moment; None where the system does not tell.
    """

    matmul_gflops: dict[str, float]
    precision: Precision
    compiler: str | None
    packed_rows: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    memory: int | None = None


def measure_machine(device: str = "cpu") -> Machine:
    """About three seconds of matrix multiplications. bf16 is taken where it is at least a quarter faster."""
    rates = {
        str(dtype).removeprefix("torch."): round(matmul_gflops(device, dtype), 1)
        for dtype in (torch.float32, torch.bfloat16)
    }
    precision: Precision = "bfloat16" if rates["bfloat16"] > 1.25 * rates["float32"] else "float32"
    memory = available_memory(device)
    if device != "cpu":
        compiler = "triton" if device == "cuda" and find_spec("triton") else None
        return Machine(rates, precision, compiler, device=device, memory=memory)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    packed = {name: measure_crossover(Scheme.parse(name), dtype, seconds=0.5).rows for name in ("int8", "int4")}
    return Machine(rates, precision, find_compiler(), packed, memory=memory)


def present_devices() -> list[str]:
    """Those of `DEVICES` that this torch can use here."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def choose_device(asked: str | None) -> str:
    """The device asked for; else the one with the fastest step of the ladder's middle size.

    Raises:
        OwnLMError: no such device, or it is not here.
    """
    present = present_devices()
    if asked is not None:
        if asked not in DEVICES:
            raise OwnLMError(f"--device {asked}: there is no such device. Choose {', '.join(DEVICES)}.")
        if asked not in present:
            raise OwnLMError(
                f"--device {asked}: this torch finds none here (it finds {', '.join(present)}). Install a torch build "
                "for it, or leave the option out."
            )
        return asked
    if len(present) == 1:
        return present[0]
    config = LADDER[len(LADDER) // 4].config(4096, 512)
    return min(present, key=lambda device: step_seconds(config, kernels_for(device), 8, steps=4, device=device))


def kernels_for(device: str) -> Kernels:
    """Kernels that run on a device without measuring or compiling anything."""
    return Kernels("float32" if device != "cuda" else "bfloat16", "tiled" if device == "cpu" else "sdpa")


def available_memory(device: str) -> int | None:
    """Bytes that are free on a device at the moment; a container's limit counts. None where nobody tells."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory())
    found = [value for value in (_free_pages(), *_container_room(_CONTAINER_LIMITS)) if value is not None]
    return min(found) if found else None


def _free_pages() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    try:  # macOS tells only how much there is in all; half of it is a careful guess
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return _windows_memory()


def _windows_memory() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        """MEMORYSTATUSEX of the Windows API."""

        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "total_file", "free_file", "total_virtual", "free_virtual", "extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    try:
        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
        return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    except AttributeError:
        return None


def _container_room(limits: tuple[tuple[Path, Path, str], ...]) -> list[int]:
    """What is left of a container's limits; files that were read and are kept in memory do not count as used."""
    found = []
    for limit, used, cache in limits:
        try:
            taken = int(used.read_text()) - _statistic(limit.parent / "memory.stat", cache)
            found.append(max(0, int(limit.read_text()) - max(0, taken)))
        except (OSError, ValueError):  # no container, or "max"
            continue
    return found


def _statistic(path: Path, name: str) -> int:
    """A line of `memory.stat`; 0 where there is none."""
    try:
        lines = (line.split() for line in path.read_text().splitlines())
        return next((int(line[1]) for line in lines if line[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0


def step_seconds(
    config: DecoderConfig, kernels: Kernels, rows: int, micro_batches: int = 1, steps: int = 6, device: str = "cpu"
) -> float:
    """The lower-quartile time of a full training step on random tokens; whatever must be compiled is compiled first.

    A step has `micro_batches` of `rows` windows.
    """
    decoder = use(Decoder(config), kernels)
    initialise(decoder, 0)
    decoder.to(device)
    optimisers = build_optimisers(decoder, Rates())
    objective = PretrainObjective(torch.zeros(config.context + 1).numpy(), "", config.context, rows)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocabulary, (rows, config.context + 1), generator=generator).to(device)
    batch = Batch({"ids": ids}, weight=float(rows * config.context), tokens=rows * config.context)
    seconds = []
    for _ in range(steps + 2):
        started = time.perf_counter()
        for _ in range(micro_batches):
            loss = objective.loss(decoder, batch) / (batch.weight * micro_batches)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        next(decoder.parameters()).flatten()[0].item()  # reading a number waits for the device
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[2:])[steps // 4]
