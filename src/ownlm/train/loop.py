"""The one training loop: batches in, updates out, nothing lost when it is stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic
from ownlm.runtime.errors import Interrupted, NumericalError
from ownlm.runtime.signals import Interruption
from ownlm.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from ownlm.train.objective import Objective
from ownlm.train.optimisers import Rates, build_optimisers, parameter_groups
from ownlm.train.schedule import Schedule

METRICS = "metrics.jsonl"
_PATIENCE = 10
"""Steps with non-finite numbers in a row after which training stops."""

StepHook = Callable[[int, Decoder], None]
"""Called with the number of updates done so far and the decoder, before the next update."""
MetricsHook = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainSettings:
    """All that decides a run besides its data, its start and its objective."""

    schedule: Schedule
    rates: Rates = field(default_factory=Rates)
    gradient_clip: float = 1.0
    checkpoint_seconds: float = 20.0
    peak_flops: float | None = None
    """The measured matmul rate (FLOP/s) that utilisation is a share of."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run came to; `loss` is the mean of the last twentieth of the steps, in the objective's unit."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    utilisation: float | None
    skipped: int


def train(
    decoder: Decoder,
    objective: Objective,
    settings: TrainSettings,
    folder: Path,
    state: Path,
    interruption: Interruption,
    on_step: StepHook | None = None,
    on_metrics: MetricsHook | None = None,
) -> TrainResult:
    """Trains `decoder` in place until the schedule ends; checkpoints go to `state`, metrics to `folder`.

    If `state` holds a checkpoint the run goes on from it, with the same numbers as if it had never stopped.

    Raises:
        Interrupted: a stop was asked for; the run was saved.
        NumericalError: too many steps in a row met non-finite numbers.
        DiskFull: a checkpoint found no room; the last good one is kept.
    """
    optimisers = build_optimisers(decoder, settings.rates)
    progress = load_checkpoint(state, decoder, optimisers) or Progress()
    metrics = _resume_metrics(folder / METRICS, progress.step)
    steps, saved, losses = settings.schedule.steps, time.monotonic(), [_number(row["loss"]) for row in metrics]
    bad, flops = _bad_steps(metrics), _flops_per_token(decoder, objective)
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        while progress.step < steps:
            if on_step is not None:
                on_step(progress.step, decoder)
            started = time.perf_counter()
            row, tokens = _update(decoder, objective, settings, optimisers, progress.step)
            bad = 0 if row["finite"] else bad + 1
            seconds = max(time.perf_counter() - started, 1e-9)
            progress = replace(
                progress,
                step=progress.step + 1,
                tokens=progress.tokens + tokens,
                seconds=progress.seconds + seconds,
                skipped=progress.skipped + (not row.pop("finite")),
            )
            rate = tokens / seconds
            row |= {"step": progress.step, "steps": steps, "tokens": progress.tokens, "tokens_per_second": round(rate)}
            row |= _timing(flops, settings, progress, rate, steps)
            file.write(_line(row))
            file.flush()
            losses.append(row["loss"])
            if on_metrics is not None:
                on_metrics(row)
            if bad >= _PATIENCE:
                raise NumericalError(
                    f"Training met non-finite numbers in {bad} steps in a row, up to step {progress.step}. "
                    "Start again with another seed, or with other minutes, which plan another model."
                )
            due = time.monotonic() - saved > settings.checkpoint_seconds
            if interruption.requested or (due and progress.step < steps):
                save_checkpoint(state, decoder, optimisers, progress)
                saved = time.monotonic()
            if interruption.requested:
                raise Interrupted(
                    interruption.exit_code,
                    f"Stopped at step {progress.step} of {steps}; everything is saved. "
                    "The same command goes on from here.",
                )
    if on_step is not None:
        on_step(progress.step, decoder)
    tail = [loss for loss in losses[-max(1, steps // 20) :] if math.isfinite(loss)]
    used = None
    if settings.peak_flops and progress.seconds:
        used = progress.tokens * flops / progress.seconds / settings.peak_flops
    mean = sum(tail) / len(tail) if tail else math.nan
    return TrainResult(progress.step, progress.tokens, progress.seconds, mean, used, progress.skipped)


def _update(
    decoder: Decoder,
    objective: Objective,
    settings: TrainSettings,
    optimisers: list[torch.optim.Optimizer],
    step: int,
) -> tuple[dict[str, Any], int]:
    """One optimiser step over all micro-batches, normalised by their true total weight."""
    decoder.train()  # whoever looked on may have asked it questions
    batches = objective.batches(step)
    weight = sum(batch.weight for batch in batches)
    total = 0.0
    for batch in batches:
        loss = objective.loss(decoder, batch) / weight
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    norm = float(torch.nn.utils.clip_grad_norm_(decoder.parameters(), settings.gradient_clip))
    finite = math.isfinite(total) and math.isfinite(norm)
    factor = settings.schedule.factor(step)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        if finite:
            optimiser.step()
        optimiser.zero_grad()
    rate = optimisers[0].param_groups[0]["lr"]
    row = {"loss": total, **objective.describe(total), "lr": rate, "grad_norm": norm}
    return {**row, "finite": finite}, sum(batch.tokens for batch in batches)


def _timing(
    flops: float, settings: TrainSettings, progress: Progress, rate: float, steps: int
) -> dict[str, float | None]:
    per_step = progress.seconds / progress.step
    used = rate * flops / settings.peak_flops if settings.peak_flops else None
    return {
        "utilisation": None if used is None else round(used, 4),
        "elapsed": round(progress.seconds, 2),
        "remaining": round(per_step * (steps - progress.step), 1),
    }


def _flops_per_token(decoder: Decoder, objective: Objective) -> float:
    """Those of the config; a frozen model's weights need no gradients of their own, 2 FLOPs a weight and token less."""
    whole = decoder.config.training_flops_per_token(getattr(objective, "context", decoder.config.context))
    learns = parameter_groups(decoder)["matrices"]
    return whole if learns else whole - 2 * decoder.config.matmul_parameters


def _resume_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Keeps the lines up to the checkpoint: what was done after it will be done again."""
    rows = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                rows.append(row)
        atomic.write_text(path, "".join(map(_line, rows)))
    return rows


def _line(row: dict[str, Any]) -> str:
    """A row as a line of JSON, which knows no NaN and no infinity: such a number is null."""
    found = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(found, allow_nan=False) + "\n"


def _number(value: float | None) -> float:
    """A figure of a row that was read: null is not a number."""
    return math.nan if value is None else value


def _bad_steps(rows: list[dict[str, Any]]) -> int:
    """How many steps up to the last one met non-finite numbers, without a good one between them."""
    finite = [math.isfinite(_number(row["loss"])) and math.isfinite(_number(row["grad_norm"])) for row in rows]
    return next((count for count, good in enumerate(reversed(finite)) if good), len(finite))
