"""What the Watch page shows: the recipe's progress, the trainings with their curves and samples, and the forecast.

Everything is read from the workspace's files, as they are while a run writes them and as they stay afterwards.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.runtime.processes import is_running
from ownlm.store.workspace import RUN_STATE, Workspace
from ownlm.studio.builds import resuming, unfinished
from ownlm.studio.jsonl import JsonLines, read_json
from ownlm.studio.steering import Steering, read_steering

STAGES = {"base": "Pre-training", "instructed": "Fine-tuning", "aligned": "Alignment"}
REFRESH = 0.5
"""Seconds within which several open pages share one reading."""


@dataclass(frozen=True)
class StageLine:
    """A stage of the recipe: `state` is done, running or waiting."""

    name: str
    state: str
    sentence: str
    seconds: float | None


@dataclass
class Training:
    """A model's training; `live` while a process works on it, `steering` where that may be asked for something."""

    id: str
    name: str
    stage: str
    live: bool
    inputs: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    steering: Steering | None = None

    @property
    def last(self) -> dict[str, Any]:
        """The newest row of metrics; empty before the first."""
        return self.rows[-1] if self.rows else {}

    @property
    def in_bits(self) -> bool:
        """Whether the curve is in bits per byte (else nats a token)."""
        return any(isinstance(row.get("bits_per_byte"), int | float) for row in self.rows)

    def points(self) -> list[tuple[int, float]]:
        """(step, loss) of every update whose loss is a finite number."""
        key = "bits_per_byte" if self.in_bits else "loss"
        found = ((row.get("step"), row.get(key)) for row in self.rows)
        numbers = ((x, y) for x, y in found if isinstance(x, int) and isinstance(y, int | float))
        return [(x, float(y)) for x, y in numbers if math.isfinite(y)]

    def growth(self) -> list[tuple[str, list[tuple[int, str]]]]:
        """For every prompt its continuations as (step, text), the newest first."""
        prompts: dict[str, dict[int, str]] = {}
        for row in self.samples:
            if isinstance(row.get("step"), int):
                prompts.setdefault(str(row.get("prompt", "")), {})[row["step"]] = str(row.get("text", ""))
        return [(prompt, sorted(texts.items(), reverse=True)) for prompt, texts in prompts.items()]


@dataclass(frozen=True)
class RunView:
    """One look at a workspace. `version` changes whenever something in it has; `command` goes on with a cut-off run."""

    version: int = 0
    recipe: str = ""
    running: bool = False
    started: str = ""
    minutes: float | None = None
    command: str | None = None
    stages: tuple[StageLine, ...] = ()
    trainings: tuple[Training, ...] = ()
    forecast: dict[str, Any] = field(default_factory=dict)

    @property
    def current(self) -> Training | None:
        """The training that goes on now, else the first, which is pre-training."""
        live = [training for training in self.trainings if training.live]
        return live[-1] if live else next(iter(self.trainings), None)


class RunReader:
    """Reads a workspace again and again, and each file only from where it stopped; may be used from several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str], JsonLines] = {}
        self._view, self._read_at, self._seen = RunView(), 0.0, ""

    def view(self, anew: bool = False) -> RunView:
        """The state now, at most `REFRESH` seconds old, or read `anew`."""
        with self._lock:
            if anew or time.monotonic() - self._read_at > REFRESH:
                self._view = self._refresh()
                self._read_at = time.monotonic()
            return self._view

    def _refresh(self) -> RunView:
        progress = _mapping(read_json(self._workspace.root / "progress.json"))
        trainings, new = [], False
        for training, folder in self._chosen():
            for kind in ("metrics", "samples"):
                lines = self._files.setdefault((training.id, kind), JsonLines(folder / f"{kind}.jsonl"))
                lines.path = folder / f"{kind}.jsonl"
                new |= lines.refresh()
            training.rows, training.samples = (self._files[training.id, kind].rows for kind in ("metrics", "samples"))
            trainings.append(training)
        known = {training.id for training in trainings}
        self._files = {key: lines for key, lines in self._files.items() if key[0] in known}
        pid = progress.get("pid")
        running = isinstance(pid, int) and progress.get("stage") is not None and is_running(pid)
        seen = repr((progress, running, [(each.id, each.live, each.steering) for each in trainings]))
        changed, self._seen = new or seen != self._seen, seen
        minutes = progress.get("minutes")
        return RunView(
            version=self._view.version + changed,
            recipe=str(progress.get("recipe", "")),
            running=running,
            started=str(progress.get("started", "")),
            minutes=float(minutes) if isinstance(minutes, int | float) else None,
            command=resuming(progress),
            stages=tuple(_stages(progress.get("stages"), running)),
            trainings=tuple(trainings),
            forecast=self._forecast(trainings) if changed else self._view.forecast,
        )

    def _chosen(self) -> list[tuple[Training, Path]]:
        """The newest base model and what was made from it, one training a stage; one being built is the newest."""
        every = [*self._finished(), *self._building()]
        chosen: list[tuple[Training, Path]] = []
        for stage in STAGES:
            same = [each for each in every if each[0].stage == stage]
            if chosen:
                same = [each for each in same if each[0].inputs.get("base") == chosen[-1][0].id]
            if not same:
                break
            chosen.append(same[-1])
        return chosen

    def _finished(self) -> Iterable[tuple[Training, Path]]:
        for model in self._workspace.artifacts("model"):
            stage = str(model.settings.get("stage", ""))
            yield Training(model.id, model.name, stage, False, model.inputs, model.metrics), model.path

    def _building(self) -> Iterable[tuple[Training, Path]]:
        """Those that were cut off after the newest model was finished, then those that are running."""
        for build in unfinished(self._workspace):
            if build.kind == "model":
                training = Training(build.id, build.name, build.stage, build.live, build.inputs)
                if build.live and build.stage == "base":
                    training.steering = read_steering(build.folder / RUN_STATE)
                yield training, build.folder

    def _forecast(self, trainings: list[Training]) -> dict[str, Any]:
        """What the plan of this run expected; before the first training that of the newest plan."""
        plans = self._workspace.artifacts("plan")
        wanted = trainings[0].inputs.get("plan") if trainings else None
        plan = next((each for each in plans if each.id == wanted), plans[-1] if plans and not trainings else None)
        return _mapping(_mapping(read_json(plan.path / "plan.json")).get("forecast")) if plan else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _stages(entries: Any, running: bool) -> Iterable[StageLine]:
    for entry in entries if isinstance(entries, list) else []:
        entry = _mapping(entry)
        state, seconds = str(entry.get("state", "waiting")), entry.get("seconds")
        if state == "running" and not running:
            state = "waiting"  # it was cut off; the same command goes on with it
        yield StageLine(
            str(entry.get("name", "?")),
            state,
            str(entry.get("sentence") or ""),
            float(seconds) if isinstance(seconds, int | float) else None,
        )
