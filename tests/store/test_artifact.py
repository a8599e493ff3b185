"""Artifacts: what is written can be checked, and damage is told in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownlm.runtime.errors import ArtifactDamaged
from ownlm.store.artifact import MANIFEST, Artifact, artifact_id, seal


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "corpus" / "notes-0123"
    (folder / "parts").mkdir(parents=True)
    (folder / "documents.txt").write_text("to be or not to be", "utf-8")
    (folder / "parts" / "one.bin").write_bytes(bytes(range(256)))
    unsealed = Artifact(path=folder, kind="corpus", name="notes", id="0123", settings={"seed": 7})
    return seal(folder, unsealed)


def test_a_sealed_artifact_reads_back_equal(artifact: Artifact) -> None:
    assert Artifact.read(artifact.path) == artifact
    assert set(artifact.files) == {"documents.txt", "parts/one.bin"}
    assert artifact.files["parts/one.bin"].size == 256
    artifact.verify()


def test_the_manifest_holds_no_path_of_this_machine(artifact: Artifact) -> None:
    text = (artifact.path / MANIFEST).read_text("utf-8")
    assert str(artifact.path.parent.parent) not in text
    assert set(json.loads(text)) == {
        "kind", "name", "id", "inputs", "settings", "metrics", "environment", "files", "created", "seconds",
    }  # fmt: skip


def test_the_id_depends_on_all_that_decides_the_content() -> None:
    base = artifact_id("corpus", {"a": "1"}, {"x": 1, "y": 2}, 1)
    assert len(base) == 12
    assert base == artifact_id("corpus", {"a": "1"}, {"y": 2, "x": 1}, 1)
    others = [
        artifact_id("tokens", {"a": "1"}, {"x": 1, "y": 2}, 1),
        artifact_id("corpus", {"a": "2"}, {"x": 1, "y": 2}, 1),
        artifact_id("corpus", {"a": "1"}, {"x": 1, "y": 3}, 1),
        artifact_id("corpus", {"a": "1"}, {"x": 1, "y": 2}, 2),
    ]
    assert len({base, *others}) == 5


def test_a_truncated_file_is_found_by_its_size(artifact: Artifact) -> None:
    (artifact.path / "documents.txt").write_text("to be", "utf-8")
    with pytest.raises(ArtifactDamaged, match="5 bytes instead of 18.*ownlm rm 0123"):
        artifact.file("documents.txt")


def test_a_missing_file_is_named(artifact: Artifact) -> None:
    (artifact.path / "parts" / "one.bin").unlink()
    with pytest.raises(ArtifactDamaged, match="has no file parts/one.bin"):
        artifact.verify()


def test_a_tampered_file_of_the_same_size_is_found_by_its_hash(artifact: Artifact) -> None:
    (artifact.path / "documents.txt").write_text("to be or not to BE", "utf-8")
    artifact.file("documents.txt")  # the size alone does not tell
    with pytest.raises(ArtifactDamaged, match="SHA-256 differs"):
        artifact.verify()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"text"', "{}", '{"files": {}}', '{"files": {"a": {"size": 1}}, "kind": "corpus"}', "1"]
)
def test_a_broken_manifest_is_one_sentence(artifact: Artifact, content: str) -> None:
    (artifact.path / MANIFEST).write_text(content, "utf-8")
    with pytest.raises(ArtifactDamaged, match="cannot be read"):
        Artifact.read(artifact.path)


def test_a_manifest_cannot_point_outside_its_folder(artifact: Artifact) -> None:
    path = artifact.path / MANIFEST
    data = json.loads(path.read_text("utf-8"))
    data["files"]["../../../secret"] = {"size": 1, "sha256": "0"}
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(ArtifactDamaged):
        Artifact.read(artifact.path)
