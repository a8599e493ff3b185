"""`ownlm pretrain` with plans that fit no machine, as a program: `[torchrun ...] pretrain_program.py pretrain ...`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from ownlm.recipe.course import Course
from small_run import small_plan

STEPS = 20


def small_course(config: Any, minutes: float, device: str | None) -> dict[str, Any]:
    """What `plan_course` gives, without measuring."""
    plan = dataclasses.replace(small_plan(), context=min(64, config.context), heldout_bytes=3_000)
    course = Course.of(plan, STEPS)
    course = dataclasses.replace(course, rates=course.rates.scaled(0.25, 0.02))
    data = {"parameters": config.parameters, "batch_tokens": course.batch_tokens, "seconds": 1.0}
    return {**dataclasses.asdict(course), **data}


@contextmanager
def small() -> Iterator[None]:
    """Plans that fit no machine, and steps that take as long on every one."""
    with (
        mock.patch("ownlm.recipe.planner.make_plan", lambda *_: small_plan(context=64)),
        mock.patch("ownlm.recipe.continued_course.plan_course", small_course),
        mock.patch("ownlm.recipe.measure.step_seconds", lambda *_, **__: 0.02),
    ):
        yield


def torchrun(processes: int, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OWNLM_HOME": str(home)}
    return subprocess.run(
        [*command, __file__, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )


def main() -> int:
    """Runs the command; exits as it does."""
    from ownlm.cli import verbs
    from ownlm.cli.main import main as ownlm

    verbs.VERBS.setdefault("pretrain", verbs.Verb("pretrain", "train a base model"))
    with small():
        return ownlm(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
