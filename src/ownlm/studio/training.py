"""A minute of training on somebody's choices: `ownlm align` in a process of its own, one at a time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.store.artifact import Artifact
from ownlm.store.workspace import RUN_STATE, Workspace
from ownlm.studio.jsonl import JsonLines, read_json


@dataclass
class Round:
    """One training: `state` is running, done or failed; `result` what the command told, `error` why it failed."""

    old_id: str
    old_name: str
    pairs: int
    state: str = "running"
    step: int = 0
    steps: int = 0
    started: float = field(default_factory=time.monotonic)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def new_id(self) -> str:
        """The id of the new model's artifact; empty before there is one."""
        return str(self.result.get("id", ""))

    @property
    def verdict(self) -> dict[str, Any]:
        """The paired verdict that the command found; empty where it told none."""
        metrics = self.result.get("metrics")
        found = self.result.get("verdict") or (metrics.get("verdict") if isinstance(metrics, dict) else None)
        return found if isinstance(found, dict) else {}


class Trainer:
    """Starts rounds and follows them; a page that is opened again finds the last one here."""

    def __init__(self, workspace: Workspace, command: Sequence[str], minutes: float) -> None:
        self._workspace, self._command, self._minutes = workspace, tuple(command), minutes
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.round: Round | None = None

    @property
    def busy(self) -> bool:
        """Whether a round is running."""
        return self.round is not None and self.round.state == "running"

    def start(self, model: Artifact, pairs: Path, count: int, name: str) -> Round:
        """Begins to train `model` on a file of `count` pairs; the new model is called `name`."""
        if self.round is not None and self.busy:
            return self.round
        self.round = Round(model.id, model.name, count)
        self._task = asyncio.get_running_loop().create_task(self._run(self.round, model, pairs, name))
        return self.round

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def _run(self, round_: Round, model: Artifact, pairs: Path, name: str) -> None:
        arguments = [model.id, "--pairs", str(pairs), "--minutes", f"{self._minutes:g}", "--name", name, "--json"]
        environment = {**os.environ, "OWNLM_HOME": str(self._workspace.root), "PYTHONUTF8": "1"}
        environment.pop("OMP_NUM_THREADS", None)  # a server beside a training has one; this training may have them all
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, *arguments, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            watching = asyncio.create_task(self._follow(round_, self._process.pid))
            try:
                output, errors = await self._process.communicate()
            finally:
                watching.cancel()
        except OSError as error:
            round_.state, round_.error = "failed", f"The training could not be started: {error}."
            return
        result = last_json(output.decode("utf-8", "replace"))
        if self._process.returncode == 0 and result is not None:
            round_.result, round_.state = result, "done"
        else:
            last = errors.decode("utf-8", "replace").strip().splitlines()[-1:]
            round_.error = last[0] if last else f"The training ended with code {self._process.returncode}."
            round_.state = "failed"

    async def _follow(self, round_: Round, pid: int) -> None:
        """Reads the steps from the folder in which the process builds the model."""
        lines: JsonLines | None = None
        while True:
            await asyncio.sleep(0.4)
            if lines is None:
                folder = self._folder(pid)
                lines = JsonLines(folder / "metrics.jsonl") if folder else None
            elif lines.refresh():
                round_.step, round_.steps = (int(lines.rows[-1].get(key, 0)) for key in ("step", "steps"))

    def _folder(self, pid: int) -> Path | None:
        for folder in self._workspace.builds():
            build = read_json(folder / RUN_STATE / "build.json")
            if isinstance(build, dict) and build.get("pid") == pid and build.get("kind") == "model":
                return folder
        return None


def last_json(output: str) -> dict[str, Any] | None:
    """The JSON object in the last line of a command's output."""
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
