"""How many threads a task may take, so that training, serving and collecting feedback share the cores on purpose."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def thread_budget(share: float = 1.0) -> int:
    """A `share` (above 0, at most 1) of the physical cores that this process may use, at least 1.

    Counts physical cores, since two hyper-threads of one core share its multipliers; respects the process's affinity
    and a container's limit (cgroup v2).
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: it must lie above 0 and at most at 1")
    return max(1, int(available_cores() * share + 1e-9))


def available_cores() -> int:
    """The physical cores that this process may use, at least 1."""
    cores = _physical_cores(_allowed_cpus())
    limit = _container_limit()
    return max(1, cores if limit is None else min(cores, int(limit + 0.5)))


def _allowed_cpus() -> set[int]:
    """The logical processors that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical_cores(cpus: set[int], topology: Path = _TOPOLOGY) -> int:
    """How many cores these logical processors are, where the system tells which are siblings; else their number."""
    siblings = set()
    for cpu in cpus:
        try:
            siblings.add((topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            return len(cpus)
    return len(siblings) or 1


def _container_limit(path: Path = _CGROUP_LIMIT) -> float | None:
    """The processors' worth of time that a container may take ("150000 100000" is 1.5); None without a limit."""
    try:
        quota, period = path.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
