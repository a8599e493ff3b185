"""Killed at any moment, a run goes on as if nothing had happened: the same weights, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from long.running import SMALL_RUN, environment
from ownlm.store.workspace import Workspace
from small_run import recipe_file, write_documents

MODELS = ("small-base", "small-instructed", "small")
KILLS = 10
SCALE = 20
"""Of the small plan's steps: about half a minute undisturbed."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="no signals there"),
]


@dataclass
class Runs:
    """One recipe and plan, in as many workspaces as one likes; checkpoints every 0.3 seconds."""

    recipe: Path
    seconds: float = 0.0

    def start(self, home: Path) -> subprocess.Popen[str]:
        """The command, once it has said what it found, so that Python's own start does not count."""
        command = [
            sys.executable, SMALL_RUN, "--scale", str(SCALE), "--checkpoint-seconds", "0.3", "--", "run",
            str(self.recipe),
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env=environment(home),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Found ")
        return process

    def finish(self, home: Path) -> str:
        """Runs to the end and returns stdout."""
        with self.start(home) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out


def weights(home: Path) -> dict[str, bytes]:
    """The weights of the three models."""
    workspace = Workspace(home)
    return {name: (workspace.resolve(name).path / "model.safetensors").read_bytes() for name in MODELS}


def stage(home: Path) -> str | None:
    """What the run was at."""
    try:
        told: str | None = json.loads((home / "progress.json").read_text("utf-8"))["stage"]
    except (OSError, ValueError):
        return None
    return told


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("kills")
    return Runs(recipe_file(place / "small.yaml", write_documents(place / "documents")))


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("undisturbed")
    process = runs.start(home)
    started = time.monotonic()
    with process:
        err = process.communicate(timeout=300)[1]
    runs.seconds = time.monotonic() - started
    assert process.returncode == 0, err
    return weights(home)


def test_killed_ten_times_it_ends_with_the_same_weights(
    runs: Runs, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """At seeded random moments; whenever a run has come to its end meanwhile, another one is begun and killed."""
    chance = random.Random(20)
    homes, moments = [tmp_path / "0"], []
    while len(moments) < KILLS:
        with runs.start(homes[-1]) as process:
            time.sleep(chance.uniform(0.05, 0.3) * runs.seconds)
            if process.poll() is not None:
                homes.append(tmp_path / str(len(homes)))
                continue
            moments.append(stage(homes[-1]))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        for artifact in Workspace(homes[-1]).artifacts():
            artifact.verify()  # nothing half-made lies under a real name
    print("killed at:", moments)
    assert len(set(moments)) >= 2, "the moments fell into several stages"
    for home in homes:
        runs.finish(home)
        assert weights(home) == undisturbed
        assert Workspace(home).builds() == []
        assert not list(home.rglob("*.tmp")), "what a killed write left is swept away"
        rows = (Workspace(home).resolve("small-base").path / "metrics.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(row)["step"] for row in rows] == list(range(1, 20 * SCALE + 1))


def test_asked_to_stop_it_saves_and_tells_the_shell_why(
    runs: Runs, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with runs.start(tmp_path) as process:
            until = time.monotonic() + 60
            while not list(tmp_path.glob(".building/model-small-base-*/metrics.jsonl")) and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(0.5)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert err.startswith("Stopped: Stopped at step ")
        assert "everything is saved" in err
        assert "Traceback" not in err
    out = runs.finish(tmp_path)
    assert "(Built before.)" in out
    assert weights(tmp_path) == undisturbed
