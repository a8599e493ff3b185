"""An artifact: a folder that says what it is, what it was made from, and how."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownlm.runtime import atomic
from ownlm.runtime.errors import ArtifactDamaged

MANIFEST = "artifact.json"
KINDS = (
    "corpus", "tokenizer", "tokens", "plan", "model", "adapter", "preferences", "evaluation", "index", "report",
)  # fmt: skip


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and SHA-256 of one file of an artifact."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """What `artifact.json` holds, and where the folder lies.

    `inputs` maps a role ("corpus", "base", ...) to the id of the artifact that played it. `settings` are all that
    decided the content, `metrics` what was measured while making it.
    """

    path: Path
    kind: str
    name: str
    id: str
    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """`name-id`, as the folder is called."""
        return f"{self.name}-{self.id}"

    def file(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            ArtifactDamaged: the file is not there, or its size is not the one that was written.
        """
        path = self.path / name
        stored = self.files.get(name)
        if stored is None or not path.is_file():
            raise ArtifactDamaged(f"{self.kind} {self.label} has no file {name}. {self._remedy}")
        if path.stat().st_size != stored.size:
            raise ArtifactDamaged(
                f"{path} holds {path.stat().st_size:,} bytes instead of {stored.size:,}: it was cut short or changed. "
                f"{self._remedy}"
            )
        return path

    def verify(self) -> None:
        """Reads every file and compares size and SHA-256 with the manifest.

        Raises:
            ArtifactDamaged: naming the first file that differs.
        """
        for name, stored in self.files.items():
            path = self.file(name)
            if sha256_of(path) != stored.sha256:
                raise ArtifactDamaged(
                    f"{path} is not what was written (its SHA-256 differs): it was changed. {self._remedy}"
                )

    @property
    def _remedy(self) -> str:
        return f"Remove it with `ownlm rm {self.id}` and run the command that made it again."

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON data, without the path."""
        data = dataclasses.asdict(self)
        del data["path"]
        return data

    @classmethod
    def read(cls, folder: Path) -> Artifact:
        """Reads `folder/artifact.json`.

        Raises:
            ArtifactDamaged: no manifest, or one that is not JSON or lacks a field.
        """
        try:
            data = json.loads((folder / MANIFEST).read_text("utf-8"))
            files = {name: StoredFile(**entry) for name, entry in data.pop("files").items()}
            if outside := [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]:
                raise ValueError(f"it names a file outside its folder: {outside[0]}")
            return cls(path=folder, files=files, **data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactDamaged(
                f"{folder / MANIFEST} cannot be read ({error}). "
                "Remove the folder and run the command that made it again."
            ) from error


def artifact_id(kind: str, inputs: dict[str, str], settings: dict[str, Any], code_version: int) -> str:
    """12 hexadecimal digits that depend on the kind, the inputs' ids, the settings and the stage's code version."""
    key = {"kind": kind, "inputs": inputs, "settings": settings, "code": code_version}
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, artifact: Artifact, leave_out: str = "") -> Artifact:
    """Lists and hashes the files of a finished `folder`, and writes its manifest into it.

    The subfolder `leave_out` is no part of the artifact.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        name = inside.as_posix()
        if path.is_file() and name != MANIFEST and inside.parts[0] != leave_out:
            files[name] = StoredFile(size=path.stat().st_size, sha256=sha256_of(path))
    sealed = dataclasses.replace(artifact, path=folder, files=files, created=now(), environment=environment())
    atomic.write_json(folder / MANIFEST, sealed.to_json())
    return sealed


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, str]:
    """What a reader needs to judge or repeat a result: versions and machine, without any path or name of a person."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and seldom needed

    found = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    for package in ("ownlm", "torch", "numpy", "tokenizers", "tiktoken", "rustbpe"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
