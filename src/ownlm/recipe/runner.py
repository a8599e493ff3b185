"""Runs a recipe: stage after stage, each an artifact; what is there already is not built again."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from ownlm.data.corpus import survey
from ownlm.data.rules import load_rules
from ownlm.data.sources import Source, folder_source
from ownlm.recipe.context import RunContext
from ownlm.recipe.schema import PYTHON, Recipe, check_budget
from ownlm.recipe.stages import (
    align,
    corpus,
    evaluate,
    instruct,
    plan,
    preferences,
    pretrain,
    report,
    tokenizer,
    tokens,
)
from ownlm.runtime import atomic
from ownlm.runtime.errors import RecipeError
from ownlm.runtime.extensions import load_extension
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import catch_interrupts
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

PROGRESS = "progress.json"


@dataclass(frozen=True)
class Stage:
    """A step of the chain: the role of its artifact, its title, and the module that makes it and tells of it."""

    role: str
    title: str
    module: ModuleType


STAGES = (
    Stage("corpus", "Corpus", corpus),
    Stage("plan", "Plan", plan),
    Stage("tokenizer", "Tokenizer", tokenizer),
    Stage("tokens", "Tokens", tokens),
    Stage("base", "Pre-training", pretrain),
    Stage("instructed", "Supervised fine-tuning", instruct),
    Stage("preferences", "Preferences", preferences),
    Stage("aligned", "Alignment", align),
    Stage("evaluation", "Evaluation", evaluate),
    Stage("report", "Report", report),
)


@dataclass(frozen=True)
class RunResult:
    """The artifacts by role in the order of the chain, how many were built and reused, and the seconds it took."""

    artifacts: dict[str, Artifact]
    built: int
    reused: int
    seconds: float


class ProgressFile:
    """`workspace/progress.json`, from which the Watch page and bare `ownlm` read what is going on."""

    def __init__(self, context: RunContext, stages: Sequence[Stage], command: Sequence[str] = ()) -> None:
        recipe = context.recipe
        self._path = context.workspace.root / PROGRESS
        self._data: dict[str, Any] = {
            "recipe": str(recipe.path) if recipe.path else recipe.name,
            "command": list(command),
            "pid": os.getpid(),
            "stage": None,
            "stages": [{"name": s.title, "state": "waiting", "sentence": "", "seconds": None} for s in stages],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "minutes": context.minutes,
        }

    def set(self, index: int, state: str, sentence: str = "", seconds: float | None = None) -> None:
        """Notes the state ("running" or "done") of a stage."""
        entry = self._data["stages"][index]
        entry.update(state=state, sentence=sentence, seconds=seconds)
        self.write(entry["name"] if state == "running" else None)

    def write(self, stage: str | None) -> None:
        """Writes the file with the stage that is running now, if any."""
        self._data |= {"stage": stage, "updated": datetime.now(UTC).isoformat(timespec="seconds")}
        atomic.write_json(self._path, self._data)


def run(
    recipe: Recipe,
    workspace: Workspace,
    screen: Screen,
    minutes: float | None = None,
    open_browser: bool = False,
    port: int | None = None,
    command: Sequence[str] = (),
) -> RunResult:
    """Runs the whole chain within `minutes` (the recipe's own by default).

    Stages whose artifact exists are skipped; one that was cut off goes on where it stopped. With `open_browser` or a
    `port` a small server shows the Watch page meanwhile. `command` is what one types after `ownlm` to go on with it.

    Raises:
        OwnLMError: what is wrong with the recipe, the sources, the budget or the disk.
        Interrupted: Ctrl-C or SIGTERM; everything is saved.
    """
    started = time.monotonic()
    budget = recipe.minutes if minutes is None else minutes
    check_budget(budget)
    # The compiler's results are kept beside the artifacts, so that a second start does not pay for them again.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(workspace.root / ".cache" / "inductor"))
    with ExitStack() as stack:
        interruption = stack.enter_context(catch_interrupts())
        context = RunContext(recipe, workspace, screen, interruption, budget, find_sources(recipe))
        context.sources = [outside(source, workspace.root) for source in context.sources]
        check(context)
        _announce(context)
        if open_browser or port is not None:
            stack.enter_context(_watch_page(context, open_browser, port))
        built = run_stages(context, STAGES, command)
    return RunResult(context.artifacts, built, len(STAGES) - built, round(time.monotonic() - started, 2))


def run_stages(context: RunContext, stages: Sequence[Stage], command: Sequence[str]) -> int:
    built, progress = 0, ProgressFile(context, stages, command)
    try:
        for index, stage in enumerate(stages):
            began = time.monotonic()
            context.screen.stage(stage.title)
            progress.set(index, "running")
            make: Callable[[RunContext], tuple[Artifact, bool]] = stage.module.make
            artifact, reused = make(context)
            context.artifacts[stage.role] = artifact
            sentence: str = stage.module.sentence(context, artifact)
            context.screen.say(f"{sentence} (Built before.)" if reused else sentence)
            built += not reused
            progress.set(index, "done", sentence, round(time.monotonic() - began, 1))
            if context.interruption.requested:
                raise context.interruption.error(
                    f"Stopped after the stage '{stage.title}'; everything is saved. The same command goes on from here."
                )
    finally:
        progress.write(None)
    return built


def check(context: RunContext) -> None:
    """Looks at everything that a recipe names and a late stage needs, so that nothing is missed after minutes of work.

    Raises:
        OwnLMError: an unknown kit, rule or objective, or a suite that cannot be read.
    """
    from ownlm.evaluate.suite import read_suite

    _ = context.kits, load_rules(context.recipe.corpus.rules)
    load_extension("ownlm.objectives", context.recipe.align.objective)
    suite = evaluate.suite_path(context)
    if suite is not None:
        read_suite(suite)


def find_sources(recipe: Recipe) -> list[Source]:
    """The recipe's sources: folders, and for "python" this machine's library and packages.

    Raises:
        RecipeError: a folder that does not exist.
        CorpusError: a Python without its library's sources (asks for a folder).
    """
    sources: list[Source] = []
    for name in recipe.sources:
        if name == PYTHON:
            from ownlm.recipe.kits.python.sources import demo_sources

            sources += demo_sources()
        elif Path(name).is_dir():
            sources.append(folder_source(name))
        else:
            where = f"{recipe.path}: " if recipe.path else ""
            raise RecipeError(f"{where}the source {name} is not a folder.")
    return sources


def outside(source: Source, workspace: Path) -> Source:
    """The source without the workspace, where that lies inside: a model must not learn from its own reports."""
    root, inside, refuse = source.root, workspace.resolve(), source.refuse
    if not inside.is_relative_to(root):
        return source

    def refused(name: str) -> str | None:
        return "the workspace" if (root / name).is_relative_to(inside) else refuse(name) if refuse else None

    return dataclasses.replace(source, refuse=refused)


def _announce(context: RunContext) -> None:
    settings = context.recipe.corpus.settings(context.minutes, context.recipe.seed)
    found = survey(context.sources, settings)
    budget = settings.max_bytes or found.bytes
    reads = (
        f"all {found.bytes / 1e6:.1f} MB"
        if found.bytes <= budget
        else f"{budget / 1e6:.1f} of {found.bytes / 1e6:.1f} MB"
    )
    context.screen.say(
        f"Found {found.files:,} files from {len(found.by_source):,} sources; this run reads {reads}, takes about "
        f"{context.minutes:g} minutes and writes into {context.workspace.root}. Nothing leaves this machine."
    )


def _watch_page(context: RunContext, open_browser: bool, port: int | None) -> Any:
    from ownlm.serve.background import watch_server

    return watch_server(context.workspace, port, open_browser, context.screen)
