"""`ownlm doctor`: what this machine offers, measured, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ownlm.cli.common import size_text, verb, workspace
from ownlm.runtime.browser import find_browser
from ownlm.runtime.device import find_compiler, matmul_gflops
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.runtime.threads import available_cores

LIBRARIES = ("ownlm", "torch", "tokenizers", "tiktoken", "rustbpe", "nicegui", "fastapi", "transformers")
LEAST_DISK = 2e9
"""Bytes: a demo with its checkpoints needs a quarter of this."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: `good` None where there is nothing to judge; `figures` for programs."""

    name: str
    value: str
    good: bool | None = None
    figures: dict[str, Any] | None = None


@verb
def command(screen: Screen) -> None:
    """Look this machine over: device, measured rates, compiler, browser, port, disk, versions."""
    findings: list[Finding] = []
    checks: list[Callable[[], Iterator[Finding]]] = [
        machine, rates, training, compiler, browser, port, disk, versions,
    ]  # fmt: skip
    with screen.bar("measuring", total=len(checks)) as bar:
        for done, check in enumerate(checks):
            bar.update(done, check.__name__)
            findings.extend(check())
    marks = {True: "✓", False: "!", None: " "}
    screen.table(["", "", ""], [[marks[each.good], each.name, each.value] for each in findings])
    troubles = [each.name for each in findings if each.good is False]
    screen.say(f"Look at: {', '.join(troubles)}." if troubles else "All is well.")
    screen.next("ownlm demo" if not workspace().artifacts("model") else "ownlm", "")
    screen.result({"findings": [asdict(each) for each in findings], "well": not troubles})


def machine() -> Iterator[Finding]:
    """System, Python, cores, memory."""
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    cores = available_cores()
    yield Finding("cores", f"{cores} of {os.cpu_count()} logical", figures={"cores": cores})
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        yield Finding("memory", size_text(memory), memory >= 4e9, {"bytes": memory})


def rates() -> Iterator[Finding]:
    """The device, and how fast it multiplies matrices in each precision."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    named = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    yield Finding("device", f"{device} ({named}), torch threads: {torch.get_num_threads()}", True)
    for precision in (torch.float32, torch.bfloat16):
        label = str(precision).removeprefix("torch.")
        try:
            gflops = matmul_gflops(device, precision)
        except (RuntimeError, TypeError) as error:
            yield Finding(f"matmul {label}", f"not on this device ({error})")
            continue
        yield Finding(f"matmul {label}", f"{gflops:,.0f} GFLOP/s", figures={"gflops": gflops})


def training() -> Iterator[Finding]:
    """What training on each device must do without."""
    from ownlm.recipe.measure import present_devices
    from ownlm.train.operations import missing_operations

    for device in present_devices():
        missing = missing_operations(device)
        lacks = "; ".join(f"no {each.operation} ({each.instead} instead)" for each in missing)
        figures = {"missing": [asdict(each) for each in missing]}
        yield Finding(f"training on {device}", lacks or "every operation is there", figures=figures)


def compiler() -> Iterator[Finding]:
    """A C++ compiler, which torch.compile needs on processors."""
    yield Finding("compiler", find_compiler() or "none: torch.compile is left out, and training is somewhat slower")


def browser() -> Iterator[Finding]:
    """A browser for the Studio's tests and pictures."""
    found = find_browser()
    yield Finding("browser", found.name if found else "no Chrome, Chromium or Edge: the browser tests are skipped")


def port(number: int = 8000) -> Iterator[Finding]:
    """Whether `ownlm serve` can have its usual port."""
    from ownlm.serve.run import listen

    try:
        listen("127.0.0.1", number).close()
    except OwnLMError as error:
        yield Finding("port", str(error), False)
    else:
        yield Finding("port", f"{number} is free", True)


def disk() -> Iterator[Finding]:
    """The workspace, and the room around it."""
    root = workspace().root
    there: Path = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    count = len(workspace().artifacts())
    yield Finding("workspace", f"{root} ({count} artifacts)", os.access(there, os.W_OK), {"artifacts": count})
    yield Finding("disk", f"{size_text(free)} free", free >= LEAST_DISK, {"bytes": free})


def versions() -> Iterator[Finding]:
    """The libraries that matter."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    yield Finding("versions", ", ".join(f"{name} {number}" for name, number in found.items()), figures=found)
