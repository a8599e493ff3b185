"""Which builds are running, which were cut off, and what goes on with a run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ownlm.store.workspace import Workspace
from ownlm.studio.builds import resuming, unfinished
from studio_types import make_models

NO_PROCESS = 2**22 + 7
"""Above Linux's largest process id."""
STAGES = [{"name": "Corpus", "state": "done"}, {"name": "Pre-training", "state": "running"}]


def begin(workspace: Workspace, key: str, pid: int, started: str) -> Path:
    folder = workspace.root / ".building" / f"model-m-{key}"
    (folder / "run-state").mkdir(parents=True)
    build = {"kind": "model", "name": "m", "id": key, "inputs": {}, "settings": {}, "pid": pid, "started": started}
    (folder / "run-state" / "build.json").write_text(json.dumps(build), "utf-8")
    return folder


def test_a_build_is_live_while_its_lock_is_held(workspace: Workspace) -> None:
    begin(workspace, "one", os.getpid(), "2026-01-01T00:00:00+00:00")
    assert [each.live for each in unfinished(workspace)] == [False], "another process has this id now"
    (workspace.root / ".locks").mkdir()
    with FileLock(workspace.root / ".locks" / "one.lock"):
        assert [each.live for each in unfinished(workspace)] == [True]
    assert [each.live for each in unfinished(workspace)] == [False]


def test_what_was_given_up_is_left_out(workspace: Workspace) -> None:
    begin(workspace, "old", NO_PROCESS, "2001-01-01T00:00:00+00:00")
    assert [each.id for each in unfinished(workspace)] == ["old"]
    make_models(workspace)
    assert unfinished(workspace) == []
    begin(workspace, "newer", NO_PROCESS, "2999-01-02T00:00:00+00:00")
    begin(workspace, "new", NO_PROCESS, "2999-01-01T00:00:00+00:00")
    assert [each.id for each in unfinished(workspace)] == ["new", "newer"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', '{"pid": 7, "inputs": 3, "settings": []}'])
def test_a_broken_build_file_breaks_nothing(workspace: Workspace, content: str) -> None:
    (begin(workspace, "x", NO_PROCESS, "") / "run-state" / "build.json").write_text(content, "utf-8")
    assert not any(each.live for each in unfinished(workspace))


@pytest.mark.parametrize(
    ("progress", "command"),
    [
        ({"command": ["demo", "my notes", "--minutes", "30"], "stages": STAGES}, "ownlm demo 'my notes' --minutes 30"),
        ({"recipe": "a.yaml", "minutes": 30.0, "stages": STAGES}, "ownlm run a.yaml --minutes 30"),
        ({"command": [], "recipe": "demo", "stages": STAGES}, None),
        ({"command": ["demo"], "stages": STAGES[:1]}, None),
        ({"command": ["demo"]}, None),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="quoted in another way there")
def test_the_command_that_goes_on(progress: dict[str, Any], command: str | None) -> None:
    assert resuming(progress) == command
