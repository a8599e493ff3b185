"""A student and its teacher: draws from the teacher's distributions, and a plan for the teacher's vocabulary."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from typing import TYPE_CHECKING, Any

from ownlm.recipe.context import RunContext
from ownlm.recipe.plan import PLAN, Plan
from ownlm.runtime.errors import BudgetError, DiskFull
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

if TYPE_CHECKING:
    from ownlm.data.tokenizer_protocol import AnyTokenizer
    from ownlm.recipe.course import Course

DRAWS = 24
"""Draws a token; so many leave a gradient's noise far below that of the batch (arXiv 2503.16870, figure 4)."""
CODE_VERSION = 1


def make_draws(context: RunContext, course: Course) -> tuple[Artifact, bool]:
    """The draws of the artifact "teacher" for every training token of "tokens"; goes on where it was cut off."""
    return context.workspace.make(
        "tokens",
        f"{context.recipe.name}-drawn",
        lambda target: _build_draws(context, target, course),
        inputs=context.inputs("tokens", "teacher"),
        settings={"stage": "draws", "draws": DRAWS, "seed": context.recipe.seed},
        code_version=CODE_VERSION,
        resumable=True,
    )


def _build_draws(context: RunContext, target: Build, course: Course) -> dict[str, Any]:
    from ownlm.align.teacher import Teacher, write_draws
    from ownlm.data.shards import opening, read_shards, token_dtype
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.model.files import load_model
    from ownlm.model.kernels import use

    teacher, screen = context.artifacts["teacher"], context.screen
    tokenizer = load_tokenizer(teacher.path)
    stream = read_shards(context.path("tokens"), "train", tokenizer.vocab_size)
    kernels = dataclasses.replace(course.kernels, compiled=False)  # documents have many lengths
    decoder = use(load_model(teacher.path, dtype=kernels.dtype), kernels).eval()
    if course.device == "cuda":
        decoder = decoder.to("cuda")
    tokens = len(stream.ids)
    size = tokens * DRAWS * token_dtype(tokenizer.vocab_size)().itemsize
    free = shutil.disk_usage(target.folder).free + sum(path.stat().st_size for path in target.folder.glob("*.bin"))
    if free < size:
        raise DiskFull(
            f"What {teacher.name} says of {tokens:,} tokens takes {size / 1e6:,.0f} MB; the disk that holds "
            f"{target.folder} has {free / 1e6:,.0f} left. Free some space and run the same command again."
        )
    screen.say(
        f"{teacher.name} is asked what comes next at each of {tokens:,} tokens: {DRAWS} draws each, "
        f"{size / 1e6:,.1f} MB. This is done once."
    )
    pace = _Pace(tokens)
    with screen.bar("Asking the teacher", tokens, "tokens") as bar:

        def progress(done: int) -> None:
            bar.update(done)
            if (minutes := pace.minutes(done)) is not None and minutes >= 1:
                screen.say(f"It will take about {minutes:.0f} minutes, besides the time for training.")
            if context.interruption.requested:
                raise context.interruption.error(
                    f"Stopped after {done:,} of {tokens:,} tokens; what the teacher said of them is saved. The same "
                    "command goes on from here."
                )

        given = len(opening(tokenizer))
        seed = derive_seed(context.recipe.seed, "teacher")
        written = write_draws(
            Teacher.of(decoder, tokenizer), stream, given, target.folder, target.state, DRAWS, seed, progress
        )
    return {"tokens": tokens, "bytes": written}


class _Pace:
    """How long the rest takes, judged once, between two reports: the first one may tell of work done before."""

    def __init__(self, total: int) -> None:
        self._total, self._first, self._told = total, (0, 0.0), False

    def minutes(self, done: int) -> float | None:
        """The minutes that are left, at the second call; else None."""
        before, started = self._first
        self._first = done, time.monotonic()
        if not before or self._told:
            return None
        self._told = True
        return (time.monotonic() - started) / (done - before) * (self._total - done) / 60


def draws_sentence(context: RunContext, artifact: Artifact) -> str:
    """How much the teacher said."""
    found = artifact.metrics
    teacher = context.artifacts["teacher"].name
    return f"{teacher} told {DRAWS} draws for each of {found['tokens']:,} tokens ({found['bytes'] / 1e6:,.1f} MB)."


def plan_student(context: RunContext, plan: Artifact) -> tuple[Artifact, bool]:
    """`plan` with the teacher's vocabulary and as many steps of that size as the time allows.

    Its forecast of the loss stays that of a model without a teacher.

    Raises:
        BudgetError: the time is too short for a few steps.
    """

    def build(target: Build) -> dict[str, Any]:
        from ownlm.data.tokenizer_files import load_tokenizer

        tokenizer = load_tokenizer(context.path("teacher"))
        found = student_plan(Plan.read(plan.file(PLAN)), tokenizer)
        found.write(target.folder)
        return {"forecast": dataclasses.asdict(found.forecast), "parameters": found.parameters, "steps": found.steps}

    return context.workspace.make(
        "plan",
        context.recipe.name,
        build,
        inputs={"plan": plan.id, **context.inputs("corpus", "teacher")},
        settings={"stage": "student"},
        code_version=CODE_VERSION,
    )


def student_plan(plan: Plan, tokenizer: AnyTokenizer) -> Plan:
    """See `plan_student`; measures a step."""
    import torch

    from ownlm.recipe.measure import available_memory, step_seconds
    from ownlm.recipe.memory import fit_memory
    from ownlm.recipe.planner import COMPILE_SECONDS, FEWEST_STEPS, SLACK

    torch.set_num_threads(plan.threads)
    config = plan.config(tokenizer.vocab_size)
    fitting = fit_memory(config, plan.kernels, plan.rows, available_memory(plan.device) or math.inf)
    if fitting is None:
        raise BudgetError(
            f"There is too little memory for a student of {config.parameters / 1e6:.1f} million parameters with this "
            f"teacher's vocabulary of {tokenizer.vocab_size:,}. Close other programs, or take a smaller teacher."
        )
    kernels, rows, memory = fitting
    micro_batches = plan.rows * plan.micro_batches // rows
    step = step_seconds(config, kernels, rows, micro_batches, device=plan.device)
    seconds = plan.seconds.pretrain - (COMPILE_SECONDS if plan.kernels.compiled else 0)
    steps = int(seconds / (step * SLACK))
    if steps < FEWEST_STEPS:
        raise BudgetError(
            f"{plan.minutes:g} minutes are too few for a student with this teacher's vocabulary of "
            f"{tokenizer.vocab_size:,}: a training step takes {step:.1f} s. Give more minutes."
        )
    forecast = dataclasses.replace(plan.forecast, seconds=round(steps * step, 1), tokens=steps * plan.batch_tokens)
    reasons = tuple(
        ("vocabulary", f"{tokenizer.vocab_size:,}", "the teacher's") if reason[0] == "vocabulary" else reason
        for reason in plan.reasons
        if reason[0] not in ("steps", "memory")
    )
    return dataclasses.replace(
        plan, vocabulary=tokenizer.vocab_size, parameters=config.parameters, steps=steps, forecast=forecast,
        law=f"{plan.law}; without a teacher, and with a vocabulary of its own",
        kernels=kernels, rows=rows, micro_batches=micro_batches, memory=memory,
        reasons=(
            *reasons, ("steps", f"{steps:,}", f"{step * 1000:.0f} ms each, measured"),
            ("memory", f"{memory.total / 1e9:.2g} GB", f"with the teacher's vocabulary, {rows} windows at a time"),
        ),
    )  # fmt: skip


def same_vocabulary(one: AnyTokenizer, other: AnyTokenizer) -> bool:
    """Whether every id stands for the same bytes in both."""
    return one.vocab_size == other.vocab_size and all(
        one.token_bytes(identifier) == other.token_bytes(identifier) for identifier in range(one.vocab_size)
    )
