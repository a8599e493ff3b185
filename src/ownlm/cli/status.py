"""Bare `ownlm`: what exists here, what is running, and the best next step."""

from __future__ import annotations

from typing import Any

from ownlm import __version__
from ownlm.cli.common import size_text, time_text, workspace
from ownlm.runtime.processes import is_running
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace
from ownlm.studio.builds import Unfinished, resuming, unfinished
from ownlm.studio.jsonl import read_json


def status(screen: Screen) -> None:
    """Prints the overview."""
    place = workspace()
    artifacts = place.artifacts()
    progress = read_progress(place)
    builds = [each for each in unfinished(place) if not each.live]
    command, why = next_step(place, artifacts, progress, builds)

    total = sum(file.size for each in artifacts for file in each.files.values())
    held = f"{len(artifacts)} artifacts, {size_text(total)}" if artifacts else "nothing built yet"
    screen.say(f"OwnLM {__version__} · workspace {place.root} ({held})")
    models = [each for each in artifacts if each.kind == "model"]
    if models:
        screen.stage("Models")
        names = place.aliases()
        rows = [model_row(each, names) for each in models]
        screen.table(["name", "id", "stage", "parameters", "held-out bits/byte", "made"], rows)
    if progress and progress["running"]:
        screen.stage("Running now")
        screen.say(f"{progress.get('recipe', 'a recipe')}: {progress.get('stage', 'starting')}")
        for stage in progress.get("stages", []):
            screen.detail(stage_line(stage))
    elif builds:
        screen.stage("Cut off")
        for build in builds:
            screen.say(f"{build.kind} {build.name}-{build.id}, begun {build.started or 'before'}")
        screen.detail("The command that was building it goes on where it stopped.")
    screen.next(command, why)
    screen.result({
        "version": __version__, "workspace": str(place.root), "artifacts": len(artifacts), "bytes": total,
        "models": [{"name": each.name, "id": each.id, "metrics": each.metrics} for each in models],
        "aliases": place.aliases(), "running": progress if progress and progress["running"] else None,
        "cut_off": [{"kind": b.kind, "name": b.name, "id": b.id, "started": b.started} for b in builds],
        "next": command,
    })  # fmt: skip


def read_progress(place: Workspace) -> dict[str, Any] | None:
    """`progress.json` with "running": whether the process that writes it still lives; None where there is none."""
    data = read_json(place.root / "progress.json")
    if not isinstance(data, dict):
        return None
    pid = data.get("pid")
    return {**data, "running": isinstance(pid, int) and is_running(pid) and data.get("stage") is not None}


def next_step(
    place: Workspace, artifacts: list[Artifact], progress: dict[str, Any] | None, cut_off: list[Unfinished]
) -> tuple[str, str]:
    """The command that makes most sense now, and why."""
    models = [each for each in artifacts if each.kind == "model"]
    if progress and progress["running"]:
        return "ownlm", "shows again how far it is"
    if cut_off and progress and (command := resuming(progress)) is not None:
        return command, "goes on where it stopped"
    if models:
        names = place.aliases()
        newest = models[-1]
        alias = next((name for name, identifier in names.items() if identifier == newest.id), newest.name)
        return f"ownlm chat {alias}", "or `ownlm serve` for the API and the Studio"
    return "ownlm demo", "builds a first model in about 8 minutes; nothing leaves this machine"


def model_row(model: Artifact, aliases: dict[str, str]) -> list[object]:
    """One line of the table of models."""
    called = [name for name, identifier in aliases.items() if identifier == model.id and name != model.name]
    name = f"{model.name} ({', '.join(called)})" if called else model.name
    metrics = model.metrics
    return [
        name, model.id, model.settings.get("stage", "–"), metrics.get("parameters"),
        metrics.get("heldout_bits_per_byte"), model.created[:16].replace("T", " "),
    ]  # fmt: skip


def stage_line(stage: dict[str, Any]) -> str:
    """A stage of a running recipe: a mark, its name, its sentence and its time."""
    mark = {"done": "✓", "running": "▸"}.get(str(stage.get("state")), "·")
    seconds = stage.get("seconds")
    took = f" ({time_text(float(seconds))})" if seconds else ""
    sentence = f": {stage['sentence']}" if stage.get("sentence") else ""
    return f"{mark} {stage.get('name', '?')}{sentence}{took}"
