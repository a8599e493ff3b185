"""What this machine can do: its name, a C++ compiler, and its measured matmul rates."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ownlm.runtime.threads import available_cores

if TYPE_CHECKING:
    import torch


def machine_name() -> str:
    """Processor, cores and system: plans measured on one machine are not used on another. Imports no torch."""
    return f"{_processor()}, {available_cores()} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    # Virtual machines give many processors one name; their units for matrices tell them apart.
    units = [unit for unit in ("avx2", "avx512_bf16", "amx_bf16") if unit in facts.get("flags", "").split()]
    return " ".join([facts.get("model name", platform.machine()), *units])


def find_compiler() -> str | None:
    """The C++ compiler that torch.compile would use on the processor."""
    names = (os.environ.get("CXX", ""), "cl") if sys.platform == "win32" else (os.environ.get("CXX", ""), "c++", "g++")
    return next((name for name in (*names, "clang++") if name and shutil.which(name)), None)


def matmul_gflops(device: str, precision: torch.dtype, seconds: float = 0.7) -> float:
    """The best rate in 10^9 operations a second of square multiplications (2 n³ operations each) in `seconds`."""
    import torch

    n = 4096 if device == "cuda" else 2048
    left = torch.randn(n, n, device=device).to(precision)
    right = torch.randn(n, n, device=device).to(precision)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best / 1e9


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for matrices of bfloat16 (AVX-512 BF16 or AMX).

    torch keeps these questions to itself; where it does not answer them any longer the answer is no.
    """
    import torch

    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in questions)
