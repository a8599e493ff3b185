"""The one training loop: batches in, updates out, nothing lost when it is stopped."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic
from ownlm.runtime.errors import DiskFull, Interrupted, NumericalError
from ownlm.runtime.signals import Interruption
from ownlm.train.checkpoint import Progress, load_checkpoint, remove_old, require_room, save_checkpoint
from ownlm.train.control import Control, Wish
from ownlm.train.metrics import METRICS, SKIPPED, JsonLog, number
from ownlm.train.objective import KnowsDocuments, Objective
from ownlm.train.optimisers import Rates, build_optimisers, parameter_groups, set_rates
from ownlm.train.schedule import Schedule
from ownlm.train.spikes import Reason, SpikeRule, Watchman
from ownlm.train.turns import Change, read_changes, write_changes
from ownlm.train.world import World

_PATIENCE = 10
"""Steps left out in a row after which training stops."""
_ASLEEP = 20.0
"""A step that takes so many times as long as usual, and half a minute at least, was not working all that time."""

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
    """The measured matmul rate (FLOP/s) of one process that utilisation is a share of."""
    spikes: SpikeRule | None = None


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
    *,
    control: Control | None = None,
    world: World = World(),
    say: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> TrainResult:
    """Trains `decoder` in place until the schedule ends; checkpoints go to `state`, metrics to `folder`.

    If `state` holds a checkpoint the run goes on from it, with the same numbers as if it had never stopped. `control`
    is asked before every step whether to finish or to go on for longer. Every process of `world` calls this with its
    own share of the batches; the first one writes, and calls the hooks. `say` and `warn` get sentences for people.

    Raises:
        Interrupted: a stop was asked for; the run was saved.
        NumericalError: too many steps in a row had to be left out.
        DiskFull: there is no room for two checkpoints at the start, or for one when the run is to be stopped.
    """
    return _Run(decoder, objective, settings, folder, state, world, say, warn).go(
        interruption, on_step, on_metrics, control
    )


class _Run:
    """One run, from its last checkpoint on."""

    def __init__(
        self,
        decoder: Decoder,
        objective: Objective,
        settings: TrainSettings,
        folder: Path,
        state: Path,
        world: World,
        say: Callable[[str], None] | None,
        warn: Callable[[str], None] | None,
    ) -> None:
        self.decoder, self.objective, self.settings, self.world = decoder, objective, settings, world
        self.state, self.warn = state, warn or (lambda _: None)
        self.optimisers = build_optimisers(decoder, settings.rates)
        found = load_checkpoint(state, decoder, self.optimisers, world, self.warn if world.main else None)
        if found is None and world.main:
            require_room(state, decoder)
        self.progress = found or Progress()
        self.log = JsonLog(folder / METRICS, self.progress.step) if world.main else None
        self.skips = JsonLog(folder / SKIPPED, self.progress.step) if world.main else None
        if found is not None and self.log is not None and say is not None:
            again = f"; {self.log.dropped} steps after it are done again" if self.log.dropped else ""
            say(f"Goes on from the checkpoint of step {found.step:,}{again}.")
        rows = world.broadcast(self.log.rows if self.log else [])
        self.losses = [number(row["loss"]) for row in rows]
        self.watchman = _watchman(settings.spikes, rows)
        self.changes = world.broadcast(read_changes(state))
        self.wishes: list[Wish] = []
        self.schedule = settings.schedule
        for change in self.changes:
            if change.step < self.progress.step:
                self.schedule = change.apply(self.schedule)
        self.flops = _flops_per_token(decoder, objective)
        self.recent: deque[float] = deque(maxlen=16)
        self.begun = False
        self.saved = time.monotonic()

    def go(
        self,
        interruption: Interruption,
        on_step: StepHook | None,
        on_metrics: MetricsHook | None,
        control: Control | None,
    ) -> TrainResult:
        self._turn(control)
        while self.progress.step < self.schedule.steps:
            if on_step is not None:
                on_step(self.progress.step, self.decoder)
            row = self._step()
            if on_metrics is not None and self.world.main:
                on_metrics(row)
            if self.watchman.in_a_row >= _PATIENCE:
                raise self._hopeless(row)
            late = self.world.main and time.monotonic() - self.saved > self.settings.checkpoint_seconds
            stop, due = self.world.sum([interruption.requested, late])
            if due and not stop and self.progress.step < self.schedule.steps:
                self._save_if_there_is_room()
            if stop:
                self._save()
                raise Interrupted(
                    max(self.world.collect(interruption.exit_code if interruption.requested else 0)),
                    f"Stopped at step {self.progress.step} of {self.schedule.steps}; everything is saved. "
                    "The same command goes on from here.",
                )
            self._turn(control)
        if on_step is not None:
            on_step(self.progress.step, self.decoder)
        if not self._flush():
            self.warn(f"The disk is full: the last rows of {METRICS} could not be written.")
        return self._result()

    def _turn(self, control: Control | None) -> None:
        """Applies what was recorded for this step before, else what is asked for now."""
        step = self.progress.step
        if step >= self.schedule.steps:
            return
        if control is not None and not any(change.step >= step for change in self.changes):
            self._take_up(control)
        for change in self.changes:
            if change.step == step:
                self.schedule = change.apply(self.schedule)

    def _take_up(self, control: Control) -> None:
        """Makes changes of the wishes, once they are on the disk; those that find no room there wait.

        In the first two steps they wait as well: what a step takes is not known before the second one.
        """
        made: list[Change] = []
        step, seconds = self.progress.step, self.progress.seconds
        if self.world.main:
            asked = control.asked()
            self.wishes += asked
            if self.wishes and step > 1:
                pace = statistics.median(self.recent) if self.recent else seconds / step
                made = [Change.of(wish, step, seconds, pace) for wish in self.wishes]
                try:
                    write_changes(self.state, [*self.changes, *made])
                    self.wishes = []
                except DiskFull:
                    made = []
                    if asked:
                        self.warn("The disk is full: what was asked for takes effect when it can be written down.")
        self.changes += self.world.broadcast(made)

    def _step(self) -> dict[str, Any]:
        """One update, the progress that it makes, and its row in the metrics."""
        started = time.perf_counter()
        step, steps = self.progress.step, self.schedule.steps
        row, own_tokens, reason = self._update()
        seconds = self._awake(time.perf_counter() - started)
        [tokens] = self.world.sum([own_tokens])
        self.progress = replace(
            self.progress,
            step=step + 1,
            tokens=self.progress.tokens + int(tokens),
            seconds=self.progress.seconds + seconds,
            skipped=self.progress.skipped + (reason is not None),
        )
        row |= {"step": step + 1, "steps": steps, "tokens": self.progress.tokens}
        row |= self._timing(tokens / seconds, steps) | ({"skipped": reason} if reason else {})
        if self.log is not None:
            self.log.add(row)
        if reason and self.skips is not None:
            documents = self.objective.documents(step) if isinstance(self.objective, KnowsDocuments) else []
            self.skips.add(
                {key: row[key] for key in ("step", "skipped", "loss", "grad_norm")} | {"documents": documents}
            )
        self.losses.append(row["loss"])
        return row

    def _update(self) -> tuple[dict[str, Any], int, Reason | None]:
        """One optimiser step over all micro-batches of all processes, normalised by their true total weight."""
        self.decoder.train()  # whoever looked on may have asked it questions
        step = self.progress.step
        batches = self.objective.batches(step)
        [weight] = self.world.sum([sum(batch.weight for batch in batches)])
        losses = []
        for batch in batches:
            loss = self.objective.loss(self.decoder, batch) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        [total] = self.world.sum([sum(loss.item() for loss in losses)])
        self.world.gradients(self.decoder)
        norm = self.world.clip(self.decoder.parameters(), self.settings.gradient_clip)
        reason = self.watchman.judge(total, norm)
        set_rates(self.optimisers, self.settings.rates, self.schedule.factor(step), step)
        for optimiser in self.optimisers:
            if reason is None:
                optimiser.step()
            optimiser.zero_grad()
        rate = self.optimisers[0].param_groups[0]["lr"]
        row = {"loss": total, **self.objective.describe(total), "lr": rate, "grad_norm": norm}
        return row, sum(batch.tokens for batch in batches), reason

    def _awake(self, seconds: float) -> float:
        """The step's time without what the machine slept, or the process was stopped for, meanwhile."""
        usual = statistics.median(self.recent) if self.recent else math.inf
        if seconds > max(30.0, _ASLEEP * usual):
            return usual
        if self.begun:  # the first step of a process compiles, and is like no other
            self.recent.append(seconds)
        self.begun = True
        return max(seconds, 1e-9)

    def _timing(self, rate: float, steps: int) -> dict[str, float | None]:
        progress, peak = self.progress, self.settings.peak_flops
        used = rate * self.flops / (peak * self.world.size) if peak else None
        return {
            "tokens_per_second": round(rate),
            "utilisation": None if used is None else round(used, 4),
            "elapsed": round(progress.seconds, 2),
            "remaining": round(progress.seconds / progress.step * (steps - progress.step), 1),
        }

    def _save(self) -> None:
        """No checkpoint is ahead of the metrics: what a resumed run knows of the steps before it, it knows from them.

        Raises:
            DiskFull: no space is left for either.
        """
        if self.world.any(not self._flush()):
            if self.world.main:
                remove_old(self.state, 1)
            if self.world.any(not self._flush()):
                raise atomic.disk_full(self.state)
        save_checkpoint(self.state, self.decoder, self.optimisers, self.progress, self.world)
        self.saved = time.monotonic()

    def _flush(self) -> bool:
        """Whether all rows are written."""
        written = [log.flush() for log in (self.log, self.skips) if log is not None]
        return all(written)

    def _save_if_there_is_room(self) -> None:
        """A full disk does not end the run: the last good checkpoint stays, and the next due one is tried."""
        try:
            self._save()
        except DiskFull:
            self.saved = time.monotonic()
            self.warn(
                f"The disk that holds {self.state} is full: step {self.progress.step} could not be saved, the last "
                "checkpoint before it is kept. Training goes on and tries again; free some space."
            )

    def _hopeless(self, row: dict[str, Any]) -> NumericalError:
        what = "non-finite numbers" if row["skipped"] == "non-finite" else "losses or gradients far above all before"
        known = (
            " skipped.jsonl lists the documents of those batches." if isinstance(self.objective, KnowsDocuments) else ""
        )
        return NumericalError(
            f"Training met {what} in {self.watchman.in_a_row} steps in a row, up to step {self.progress.step}.{known} "
            "Start again with another seed, or with other minutes, which plan another model."
        )

    def _result(self) -> TrainResult:
        progress, peak = self.progress, self.settings.peak_flops
        tail = [loss for loss in self.losses[-max(1, progress.step // 20) :] if math.isfinite(loss)]
        used = None
        if peak and progress.seconds:
            used = progress.tokens * self.flops / progress.seconds / (peak * self.world.size)
        mean = sum(tail) / len(tail) if tail else math.nan
        return TrainResult(progress.step, progress.tokens, progress.seconds, mean, used, progress.skipped)


def _watchman(rule: SpikeRule | None, rows: Sequence[dict[str, Any]]) -> Watchman:
    """A watchman who has seen these steps."""
    watchman = Watchman(rule)
    for row in rows:
        loss, norm = number(row["loss"]), number(row["grad_norm"])
        finite = math.isfinite(loss) and math.isfinite(norm)
        watchman.note(loss, norm, row.get("skipped", None if finite else "non-finite"))
    return watchman


def _flops_per_token(decoder: Decoder, objective: Objective) -> float:
    """Those of the config; a frozen model's weights need no gradients of their own, 2 FLOPs a weight and token less."""
    whole = decoder.config.training_flops_per_token(getattr(objective, "context", decoder.config.context))
    learns = parameter_groups(decoder)["matrices"]
    return whole if learns else whole - 2 * decoder.config.matmul_parameters
