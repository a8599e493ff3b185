"""What the benchmarks share: figures with targets, their table and last JSON line, and child processes."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One measured value and what it should be: at least `target`, or at most where `at_most` is set."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the target is met; a figure without one always holds."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


def report(benchmark: str, figures: Sequence[Figure], peers: dict[str, Any], rounds: int) -> int:
    """Prints a table, then everything as one JSON line; returns the exit code (1 where a target is missed)."""
    wide = max(len(figure.name) for figure in figures)
    print()
    for figure in figures:
        target = "" if figure.target is None else f"{'<=' if figure.at_most else '>='} {figure.target:g}"
        verdict = "" if figure.target is None else "holds" if figure.holds else "MISSED"
        print(f"{figure.name:<{wide}}  {figure.value:>10.4g} {figure.unit:<12} {target:<10} {verdict}")
    rows = [
        {"name": each.name, "value": each.value, "unit": each.unit, "target": each.target, "holds": each.holds}
        for each in figures
    ]
    holds = all(figure.holds for figure in figures)
    document = {"benchmark": benchmark, "figures": rows, "holds": holds, "peers": peers, "rounds": rounds}
    print(json.dumps(document, ensure_ascii=False))
    return 0 if holds else 1


def arguments(description: str, **options: tuple[type, Any, str]) -> argparse.Namespace:
    """`--quick`, `--rounds N` and the benchmark's own `options` (type, default, help)."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under five minutes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    for name, (kind, default, text) in options.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    return parser.parse_args()


def in_child(file: str, task: str, **given: Any) -> dict[str, Any]:
    """Runs `python FILE --child JSON` and returns the JSON document of its last line: a clean process for each figure.

    Raises:
        RuntimeError: the child failed; its output is in the message.
    """
    command = [sys.executable, file, "--child", json.dumps({"task": task, **given})]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run_child(text: str, tasks: dict[str, Callable[..., Any]]) -> None:
    """The child's side: calls the task and prints its result (a dict or a dataclass) as the last line."""
    asked = json.loads(text)
    found = tasks[asked.pop("task")](**asked)
    print(json.dumps(found if isinstance(found, dict) else asdict(found)))


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)
