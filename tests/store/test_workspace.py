"""The workspace: built once, whole or not at all, one builder at a time, found by any of its names."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ownlm.runtime.errors import ArtifactBusy, ArtifactDamaged, ArtifactNotFound, DiskFull
from ownlm.store.artifact import MANIFEST, Artifact
from ownlm.store.workspace import BUILDING, RUN_STATE, Build, Workspace


def write(text: str = "hello") -> Any:
    """A build that writes one file."""

    def build(job: Build) -> dict[str, Any]:
        (job.folder / "text.txt").write_text(text, "utf-8")
        return {"bytes": len(text)}

    return build


def never(job: Build) -> dict[str, Any]:
    raise AssertionError("built again")


def made(workspace: Workspace, kind: str = "corpus", name: str = "notes", **settings: Any) -> Artifact:
    return workspace.make(kind, name, write(), settings=settings)[0]


# ---- building


def test_the_same_inputs_and_settings_are_reused(workspace: Workspace) -> None:
    first, reused = workspace.make("corpus", "notes", write(), settings={"seed": 1})
    assert not reused
    assert first.metrics == {"bytes": 5}
    again, reused = workspace.make("corpus", "notes", never, settings={"seed": 1})
    assert reused
    assert again == first


def test_other_settings_or_code_build_another(workspace: Workspace) -> None:
    first = made(workspace, seed=1)
    assert made(workspace, seed=2).id != first.id
    assert workspace.make("corpus", "notes", write(), settings={"seed": 1}, code_version=2)[0].id != first.id


def test_the_build_folder_tells_what_is_being_built(workspace: Workspace) -> None:
    def build(job: Build) -> dict[str, Any]:
        state = json.loads((job.folder / "run-state" / "build.json").read_text("utf-8"))
        assert (state["kind"], state["name"], state["id"], state["pid"]) == ("corpus", "notes", job.id, os.getpid())
        assert workspace.builds() == [job.folder]
        (job.state / "checkpoint").write_text("half", "utf-8")
        return {}

    artifact, _ = workspace.make("corpus", "notes", build)
    assert artifact.files == {}, "run state is no part of the artifact"
    assert workspace.builds() == []


def test_a_failed_build_leaves_nothing_under_a_real_name(workspace: Workspace) -> None:
    def build(job: Build) -> dict[str, Any]:
        (job.folder / "half.txt").write_text("half", "utf-8")
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        workspace.make("corpus", "notes", build)
    assert workspace.artifacts() == []
    assert not (workspace.root / "corpus").exists()

    artifact, reused = workspace.make("corpus", "notes", write())
    assert not reused
    assert set(artifact.files) == {"text.txt"}, "what the crash left is wiped"


def test_a_resumable_build_gets_what_was_left(workspace: Workspace) -> None:
    def cut_off(job: Build) -> dict[str, Any]:
        (job.state / "step").write_text("40", "utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.make("model", "first", cut_off, resumable=True)

    [job] = workspace.builds()
    (job / "run-state" / ".checkpoint.dcp.tmp").mkdir()  # several processes were killed while they wrote one
    (job / "run-state" / ".checkpoint.dcp.tmp" / "half").touch()

    def go_on(job: Build) -> dict[str, Any]:
        assert not list(job.state.glob(".*.tmp"))
        return {"from": int((job.state / "step").read_text("utf-8"))}

    artifact, _ = workspace.make("model", "first", go_on, resumable=True)
    assert artifact.metrics == {"from": 40}


def trained(job: Build) -> dict[str, Any]:
    """A build that goes on from its checkpoint and leaves one."""
    path = job.state / "checkpoint"
    begun = int(path.read_text("utf-8")) if path.exists() else 0
    path.write_text("40", "utf-8")
    (job.folder / "weights").write_text("40", "utf-8")
    return {"from": begun}


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("function", ["ownlm.store.workspace.seal", "ownlm.store.workspace.os.replace"])
def test_a_kill_while_a_build_is_being_finished_keeps_its_checkpoint(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(function, interrupted)
        # `os.replace` also writes `build.json`, before the build begins.
        patch.setattr("ownlm.store.workspace.atomic.write_json", lambda path, _: path.write_text("{}", "utf-8"))
        with pytest.raises(KeyboardInterrupt):
            workspace.make("model", "first", trained, resumable=True)
    assert workspace.artifacts() == []
    artifact, reused = workspace.make("model", "first", trained, resumable=True)
    assert (artifact.metrics, reused) == ({"from": 40}, False)
    assert set(artifact.files) == {"weights"}
    assert not (artifact.path / RUN_STATE).exists()


def test_a_kill_just_after_the_renaming_leaves_an_artifact_and_nothing_else(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ownlm.store.workspace.shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workspace.make("model", "first", trained, resumable=True)
    (artifact,) = workspace.artifacts()
    assert (artifact.path / RUN_STATE).exists()
    artifact.verify()
    assert workspace.resolve("first").id == artifact.id
    assert workspace.builds() == []
    assert workspace.make("model", "first", never, resumable=True) == (artifact, True)
    assert not (artifact.path / RUN_STATE).exists(), "removed when it is used"


def test_a_build_that_is_finished_while_builds_are_listed_is_left_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        workspace.make("model", "first", interrupted, resumable=True)
    glob = Path.glob

    def with_renamed(folder: Path, pattern: str) -> list[Path]:
        return [folder / "renamed" / RUN_STATE / "build.json", *glob(folder, pattern)]

    monkeypatch.setattr(Path, "glob", with_renamed)
    assert [folder.name.partition("-")[0] for folder in workspace.builds()] == ["model"]


def test_what_a_killed_write_left_does_not_get_into_the_artifact(workspace: Workspace) -> None:
    def killed(job: Build) -> dict[str, Any]:
        (job.folder / ".model.safetensors.x1.tmp").write_bytes(b"half")
        (job.folder / "kept.txt").write_text("whole", "utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.make("model", "notes", killed, resumable=True)
    artifact, _ = workspace.make("model", "notes", lambda job: {}, resumable=True)
    assert list(artifact.files) == ["kept.txt"]


SLOW_BUILD = """
import sys, time
from pathlib import Path
from ownlm.store.workspace import Workspace

def build(job):
    (job.folder / "half.txt").write_text("half")
    Path(sys.argv[2]).touch()
    time.sleep(60)
    return {}

Workspace(sys.argv[1]).make("corpus", "notes", build)
"""


@pytest.fixture
def builder(workspace: Workspace, tmp_path: Path) -> Any:
    """Another process that is in the middle of building corpus notes."""
    ready = tmp_path / "ready"
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(workspace.root), str(ready)])
    deadline = time.monotonic() + 30
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def test_an_artifact_that_another_process_builds_is_busy(workspace: Workspace, builder: Any) -> None:
    with pytest.raises(ArtifactBusy, match="Another process is building the corpus notes-"):
        workspace.make("corpus", "notes", never)
    other, _ = workspace.make("corpus", "other", write("other"), settings={"seed": 2})
    assert other.path.is_dir(), "locks are per artifact"


def test_a_killed_builder_leaves_no_lock_and_no_artifact(workspace: Workspace, builder: Any) -> None:
    builder.kill()
    builder.wait()
    assert workspace.artifacts() == []
    assert len(workspace.builds()) == 1
    artifact, reused = workspace.make("corpus", "notes", write())
    assert not reused
    assert set(artifact.files) == {"text.txt"}


def test_two_threads_do_not_build_the_same(workspace: Workspace) -> None:
    entered, release = threading.Event(), threading.Event()

    def build(job: Build) -> dict[str, Any]:
        entered.set()
        assert release.wait(20)
        return {}

    thread = threading.Thread(target=lambda: workspace.make("corpus", "notes", build))
    thread.start()
    assert entered.wait(20)
    try:
        with pytest.raises(ArtifactBusy):
            workspace.make("corpus", "notes", never)
    finally:
        release.set()
        thread.join()


def test_a_truncated_artifact_is_not_reused(workspace: Workspace) -> None:
    artifact = made(workspace)
    (artifact.path / "text.txt").write_text("he", "utf-8")
    with pytest.raises(ArtifactDamaged, match="2 bytes instead of 5"):
        workspace.make("corpus", "notes", never)


def test_a_tampered_artifact_is_not_reused(workspace: Workspace) -> None:
    artifact = made(workspace)
    (artifact.path / "text.txt").write_text("hullo", "utf-8")
    with pytest.raises(ArtifactDamaged, match="SHA-256 differs"):
        workspace.make("corpus", "notes", never)


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_building(workspace: Workspace) -> None:
    earlier = made(workspace, name="earlier", seed=1)

    with pytest.raises(DiskFull, match="is full") as caught:
        workspace.make("corpus", "notes", no_space)
    assert caught.value.exit_code == 2
    assert [each.id for each in workspace.artifacts()] == [earlier.id]


@pytest.mark.parametrize("function", ["os.fsync", "os.replace", "pathlib.Path.mkdir"])
def test_a_full_disk_at_any_write_of_the_store(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(function, no_space)
        with pytest.raises(DiskFull):
            workspace.make("corpus", "notes", write())
    assert workspace.artifacts() == []
    assert not list(workspace.root.rglob("*.tmp"))
    assert not workspace.make("corpus", "notes", write())[1]


def test_a_full_disk_leaves_an_alias_as_it_was(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = made(workspace, seed=1), made(workspace, seed=2)
    workspace.point("best", old)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(DiskFull):
            workspace.point("best", new)
    assert workspace.aliases() == {"best": old.id}


# ---- aliases and names


def test_an_alias_moves_at_once(workspace: Workspace) -> None:
    artifacts = [made(workspace, seed=seed) for seed in range(2)]
    workspace.point("best", artifacts[0])
    stop = threading.Event()

    def look() -> set[str]:
        seen = {workspace.resolve("best").id}
        while not stop.is_set():
            seen.add(workspace.resolve("best").id)
        return seen

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for turn in range(200):
                workspace.point("best", artifacts[turn % 2])
        finally:
            stop.set()
        seen = looking.result()
    assert seen, "the reader has read"
    assert seen <= {artifact.id for artifact in artifacts}, "a reader never sees anything between"


def test_an_artifact_is_found_by_each_of_its_names(workspace: Workspace) -> None:
    older, newer = made(workspace, seed=1), made(workspace, seed=2)
    os.utime(older.path)
    workspace.point("best", older)
    for name in ("best", older.id, older.id[:6], older.label):
        assert workspace.resolve(name).id == older.id
    assert workspace.resolve("notes").id == newer.id, "a name alone means the newest"


def test_an_unknown_name_lists_what_there_is(workspace: Workspace) -> None:
    with pytest.raises(ArtifactNotFound, match="nothing yet; `ownlm demo`"):
        workspace.resolve("nope")
    workspace.point("best", made(workspace))
    with pytest.raises(ArtifactNotFound, match="'nope' is not known. There is: best, notes"):
        workspace.resolve("nope")


def test_an_alias_of_another_kind_is_not_taken(workspace: Workspace) -> None:
    workspace.point("best", made(workspace))
    with pytest.raises(ArtifactNotFound, match="The model 'best' is not known"):
        workspace.resolve("best", ("model",))


def test_an_ambiguous_id_says_so(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["abcd00000001", "abcd00000002"])
    monkeypatch.setattr("ownlm.store.workspace.artifact_id", lambda *_: next(ids))
    made(workspace, name="one"), made(workspace, name="two")
    with pytest.raises(ArtifactNotFound, match="'abcd' stands for several ids.*one.*two"):
        workspace.resolve("abcd")


def test_an_alias_to_something_removed_is_one_sentence(workspace: Workspace) -> None:
    artifact = made(workspace)
    workspace.point("best", artifact)
    (workspace.root / "aliases" / "worse.json").write_text('{"id": "ffffffffffff"}', "utf-8")
    for name, content in {"broken": "{", "list": "[]", "text": '"id"', "null": "null"}.items():
        (workspace.root / "aliases" / f"{name}.json").write_text(content, "utf-8")
    assert set(workspace.aliases()) == {"best", "worse"}
    with pytest.raises(ArtifactNotFound):
        workspace.resolve("worse")
    workspace.remove(artifact)
    assert "best" not in workspace.aliases()
    assert workspace.artifacts() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../corpus", "a/b", "*", "[", "/", "\\", "a\x00b", "x" * 5000])
def test_names_cannot_leave_the_workspace(workspace: Workspace, name: str) -> None:
    made(workspace)
    with pytest.raises(ArtifactNotFound):
        workspace.resolve(name)


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a\\b", "x" * 300])
def test_an_alias_or_artifact_name_that_is_no_file_name_is_refused(workspace: Workspace, name: str) -> None:
    from ownlm.runtime.errors import OwnLMError

    artifact = made(workspace)
    with pytest.raises(OwnLMError, match="name"):
        workspace.point(name, artifact)
    with pytest.raises(OwnLMError, match="name"):
        workspace.make("corpus", name, never, settings={"other": 1})


def test_damaged_artifacts_are_left_out_of_lists_and_told_when_asked_for(workspace: Workspace) -> None:
    artifact = made(workspace)
    (artifact.path / MANIFEST).write_text("{", "utf-8")
    assert workspace.artifacts() == []
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        workspace.resolve(artifact.label)
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        workspace.resolve(artifact.id)


def test_nothing_is_created_before_something_is_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "empty")
    assert workspace.artifacts() == []
    assert workspace.aliases() == {}
    assert workspace.builds() == []
    assert not workspace.root.exists()
    assert BUILDING.startswith("."), "builds do not look like artifacts"
