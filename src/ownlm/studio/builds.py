"""Builds that have not ended: which are running, which were cut off, and the command that goes on with a run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ownlm.runtime.processes import is_running
from ownlm.store.workspace import RUN_STATE, Workspace
from ownlm.studio.jsonl import read_json


@dataclass(frozen=True)
class Unfinished:
    """A build without its artifact; `live` while a process works on it, `started` in UTC, ISO 8601."""

    kind: str
    name: str
    id: str
    started: str
    live: bool
    stage: str
    inputs: dict[str, str]
    folder: Path


def unfinished(workspace: Workspace) -> list[Unfinished]:
    """The builds that matter: first those that were cut off, then those that are running, each oldest first.

    A build that was cut off before the newest model was finished is left out: it was given up.
    """
    since = max((model.created for model in workspace.artifacts("model")), default="")
    found = [build for folder in workspace.builds() if (build := _read(workspace, folder)) is not None]
    return sorted(
        (each for each in found if each.live or each.started >= since), key=lambda each: (each.live, each.started)
    )


def _read(workspace: Workspace, folder: Path) -> Unfinished | None:
    build = read_json(folder / RUN_STATE / "build.json")
    if not isinstance(build, dict) or not isinstance(build.get("pid"), int):
        return None
    kind, name, key, started = (str(build.get(field, "")) for field in ("kind", "name", "id", "started"))
    settings, inputs = build.get("settings"), build.get("inputs")
    stage = str(settings.get("stage", "")) if isinstance(settings, dict) else ""
    named = {str(role): str(each) for role, each in inputs.items()} if isinstance(inputs, dict) else {}
    live = is_running(build["pid"]) and _locked(workspace, key)
    return Unfinished(kind, name, key, started, live, stage, named, folder)


def _locked(workspace: Workspace, identifier: str) -> bool:
    """Whether somebody builds this: a process's id alone may be another's by now, as after a restart."""
    path = workspace.root / ".locks" / f"{identifier}.lock"
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):  # OSError: it cannot be asked, as in a workspace that is only read
        return True


def resuming(progress: Mapping[str, Any]) -> str | None:
    """The command that goes on with the run that `progress.json` tells of; None when it has ended or told none."""
    stages = progress.get("stages")
    if not isinstance(stages, list) or all(isinstance(each, dict) and each.get("state") == "done" for each in stages):
        return None
    words, recipe, minutes = progress.get("command"), str(progress.get("recipe", "")), progress.get("minutes")
    if isinstance(words, list) and words:
        return typed([str(each) for each in words])
    if not recipe.endswith((".yaml", ".yml")):
        return None
    budget = ["--minutes", f"{minutes:.15g}"] if isinstance(minutes, int | float) else []
    return typed(["run", recipe, *budget])


def typed(words: list[str]) -> str:
    """`ownlm` and these words as one types them in this system's shell."""
    line = ["ownlm", *words]
    return subprocess.list2cmdline(line) if sys.platform == "win32" else shlex.join(line)
