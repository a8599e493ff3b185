"""Bare `ownlm`: what exists here, what is running, and the best next step."""

from __future__ import annotations

import json
from typing import Any

from ownlm import __version__
from ownlm.cli.common import size_text, time_text, workspace
from ownlm.runtime.processes import is_running
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import RUN_STATE, Workspace


def status(screen: Screen) -> None:
    """Prints the overview."""
    place = workspace()
    artifacts = place.artifacts()
    progress, builds = read_progress(place), cut_off(place)
    command, why = next_step(place, artifacts, progress, bool(builds))

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
            screen.say(f"{build['kind']} {build['name']}-{build['id']}, begun {build.get('started', 'before')}")
    screen.next(command, why)
    screen.result({
        "version": __version__, "workspace": str(place.root), "artifacts": len(artifacts), "bytes": total,
        "models": [{"name": each.name, "id": each.id, "metrics": each.metrics} for each in models],
        "aliases": place.aliases(), "running": progress if progress and progress["running"] else None,
        "cut_off": builds, "next": command,
    })  # fmt: skip


def read_progress(place: Workspace) -> dict[str, Any] | None:
    """`progress.json` with "running": whether the process that writes it still lives; None where there is none."""
    try:
        data = json.loads((place.root / "progress.json").read_text("utf-8"))
        return {**data, "running": is_running(int(data.get("pid", 0))) and data.get("stage") is not None}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def cut_off(place: Workspace) -> list[dict[str, Any]]:
    """What `build.json` says of builds whose process is gone."""
    found = []
    for folder in place.builds():
        try:
            build = json.loads((folder / RUN_STATE / "build.json").read_text("utf-8"))
            if not is_running(int(build["pid"])):
                found.append({key: build[key] for key in ("kind", "name", "id", "started")})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def next_step(
    place: Workspace, artifacts: list[Artifact], progress: dict[str, Any] | None, cut: bool
) -> tuple[str, str]:
    """The command that makes most sense now, and why."""
    models = [each for each in artifacts if each.kind == "model"]
    if progress and progress["running"]:
        return "ownlm", "shows again how far it is"
    if cut:
        recipe = str((progress or {}).get("recipe", ""))
        command = f"ownlm run {recipe}" if recipe.endswith((".yaml", ".yml")) else "ownlm demo"
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
