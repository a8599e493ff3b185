"""Every pre-training in a workspace, with its curve, its settings and what came of it: for comparing them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.render.html import count, decimal, duration, percent
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import RUN_STATE, Workspace
from ownlm.studio.builds import Unfinished, unfinished
from ownlm.studio.curve import smoothed, thinned
from ownlm.studio.jsonl import JsonLines, read_json

AXES = {"step": ("steps", 1.0), "tokens": ("million tokens", 1e6), "elapsed": ("seconds", 1.0)}
"""The key of a metrics row -> what the axis counts, and how many of the row's units that is."""
HELDOUT = "Held-out bits per byte"
_OWN_ROWS = ("stage", "objective", "steps", "seed")
"""The artifact's settings that have a row of their own, or that all base models share."""


@dataclass(frozen=True)
class BaseRun:
    """One pre-training, finished or not; `settings` are (name, value) pairs for people, `corpus` its artifact's id."""

    id: str
    name: str
    started: str
    finished: bool
    folder: Path
    corpus: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name, its day, and what it came to."""
        bits = self.metrics.get("heldout_bits_per_byte")
        came = f", {bits:.3f}" if isinstance(bits, int | float) else "" if self.finished else ", not finished"
        return f"{self.name}, {self.started[:10]}{came}"


@dataclass(frozen=True)
class Trace:
    """A run's smoothed curves by the keys of `AXES`, in bits per byte, and its last row of metrics."""

    curves: Mapping[str, list[tuple[float, float]]]
    last: Mapping[str, Any]
    planned: int | None


class BaseRuns:
    """Reads them; what is finished never changes and is read once. May be used from several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._known: dict[str, BaseRun] = {}
        self._traces: dict[str, Trace] = {}
        self._open: dict[str, JsonLines] = {}

    def all(self) -> list[BaseRun]:
        """The newest first: those under way, then those that are finished."""
        with self._lock:
            finished = [each for each in self._workspace.artifacts("model") if _is_base(each.settings)]
            found = [self._finished(artifact) for artifact in finished]
            self._known = {run.id: run for run in found}
            self._traces = {key: trace for key, trace in self._traces.items() if key in self._known}
            builds = [each for each in unfinished(self._workspace) if each.kind == "model" and each.stage == "base"]
            self._open = {key: lines for key, lines in self._open.items() if key in {each.id for each in builds}}
            return [*(self._unfinished(build) for build in reversed(builds)), *reversed(found)]

    def trace(self, run: BaseRun) -> Trace:
        """Its curves as far as they go."""
        with self._lock:
            if run.id in self._traces:
                return self._traces[run.id]
            lines = self._open.setdefault(run.id, JsonLines(run.folder / "metrics.jsonl"))
            lines.refresh()
            trace = Trace(
                {key: _curve(lines.rows, key) for key in AXES},
                lines.rows[-1] if lines.rows else {},
                _planned(lines.rows),
            )
            if run.finished:
                self._traces[run.id] = trace
                del self._open[run.id]
            return trace

    def _finished(self, artifact: Artifact) -> BaseRun:
        if artifact.id in self._known:
            return self._known[artifact.id]
        corpus, settings = self._settings(artifact.inputs, artifact.settings)
        return BaseRun(
            artifact.id, artifact.name, artifact.created, True, artifact.path, corpus, settings, artifact.metrics
        )

    def _unfinished(self, build: Unfinished) -> BaseRun:
        own = _mapping(_mapping(read_json(build.folder / RUN_STATE / "build.json")).get("settings"))
        corpus, settings = self._settings(build.inputs, own)
        return BaseRun(build.id, build.name, build.started, False, build.folder, corpus, settings)

    def _settings(self, inputs: Mapping[str, str], own: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
        plan = self._input(inputs, "plan")
        tokens = self._input(inputs, "tokens")
        corpus = self._input(tokens.inputs if tokens else inputs, "corpus")
        planned = _mapping(read_json(plan.path / "plan.json")) if plan else {}
        return corpus.id if corpus else "", tuple(_described(planned, own, corpus))

    def _input(self, inputs: Mapping[str, str], role: str) -> Artifact | None:
        try:
            return self._workspace.by_id(inputs[role])
        except (KeyError, ArtifactNotFound, ArtifactDamaged):
            return None


def outcomes(run: BaseRun, trace: Trace) -> list[tuple[str, str]]:
    """What came of a run, or how far it is: (name, value) pairs for people."""
    metrics, last = run.metrics, trace.last
    steps = metrics.get("steps", last.get("step"))
    planned = f" of {trace.planned:,} planned" if trace.planned is not None and trace.planned != steps else ""
    forecast = _mapping(metrics.get("forecast")).get("heldout_bits_per_byte")
    skipped = metrics.get("skipped")
    return [
        ("Steps made", f"{steps:,}{planned}" if isinstance(steps, int) else "–"),
        ("Steps left out", f"{skipped:,}" if isinstance(skipped, int) else "–"),
        ("Tokens", count(metrics.get("tokens", last.get("tokens")))),
        ("Time", duration(metrics.get("seconds", last.get("elapsed")))),
        ("Tokens a second", count(metrics.get("tokens_per_second", last.get("tokens_per_second")))),
        ("Share of the matmul rate", percent(metrics.get("utilisation", last.get("utilisation")), 0)),
        (HELDOUT, decimal(metrics.get("heldout_bits_per_byte"))),
        ("Forecast of it", decimal(forecast, 2)),
    ]


def _described(plan: Mapping[str, Any], own: Mapping[str, Any], corpus: Artifact | None) -> Iterable[tuple[str, str]]:
    rates, kernels = _mapping(plan.get("rates")), _mapping(plan.get("kernels"))
    context = plan.get("context")
    sizes = [plan.get("rows"), plan.get("micro_batches", 1), context]
    batch = math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None
    shape = [_plain(plan.get(key)) for key in ("layers", "width")]
    yield "Corpus", f"{corpus.name}, {corpus.id[:6]}" if corpus else "–"
    yield "Parameters", count(plan.get("parameters"))
    yield "Layers × width", " × ".join(shape) if all(shape) else "–"
    yield "Vocabulary", _plain(plan.get("vocabulary")) or "–"
    yield "Context", _plain(context) or "–"
    yield "Tokens a step", _plain(batch) or "–"
    yield "Minutes planned", _plain(plan.get("minutes")) or "–"
    yield (
        "Learning rates",
        ", ".join(f"{key} {_plain(rates[key])}" for key in ("matrices", "embeddings") if key in rates),
    )
    yield "Precision", _plain(kernels.get("precision")) or "–"
    yield "Machine", _plain(plan.get("machine") or plan.get("device")) or "–"
    yield "Seed", _plain(own.get("seed")) or "–"
    for key, value in {**own, **_mapping(own.get("chosen"))}.items():
        if key not in _OWN_ROWS and isinstance(value, str | int | float):
            yield key.replace("_", " ").capitalize(), _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_base(settings: Mapping[str, Any]) -> bool:
    return settings.get("stage") == "base"


def _planned(rows: list[dict[str, Any]]) -> int | None:
    """How many steps the run was to make at first."""
    steps = rows[0].get("steps") if rows else None
    return steps if isinstance(steps, int) else None


def _curve(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    unit = AXES[key][1]
    found = ((row.get(key), row.get("bits_per_byte")) for row in rows)
    numbers = [(x, y) for x, y in found if isinstance(x, int | float) and isinstance(y, int | float)]
    return thinned(smoothed([(x / unit, float(y)) for x, y in numbers if math.isfinite(x) and math.isfinite(y)]))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
