"""The workspace: where artifacts lie, how they are found, built once and named by aliases."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ownlm.runtime import atomic
from ownlm.runtime.errors import ArtifactBusy, ArtifactDamaged, ArtifactNotFound, OwnLMError
from ownlm.store.artifact import KINDS, MANIFEST, Artifact, artifact_id, now, seal

BUILDING = ".building"
RUN_STATE = "run-state"
"""The subfolder of a build where its checkpoints lie; it is removed when the artifact has its name."""

NAME = re.compile(r"\w[\w.+-]{0,119}")
"""What artifacts and aliases may be called: one part of a path on every system, and not hidden."""


def check_name(name: str) -> None:
    """
    Raises:
        OwnLMError: `name` cannot be an artifact's or an alias's.
    """
    if not NAME.fullmatch(name):
        raise OwnLMError(
            f"The name {name[:100]!r} cannot be used: a name begins with a letter or digit and goes on with letters, "
            "digits, '.', '_', '+' or '-', 120 at most."
        )


@dataclass(frozen=True)
class Build:
    """An artifact that is being made: `folder` becomes the artifact, `folder/run-state` holds what resuming needs."""

    kind: str
    name: str
    id: str
    folder: Path

    @property
    def state(self) -> Path:
        """The folder of the run's checkpoints, made on first use."""
        path = self.folder / RUN_STATE
        path.mkdir(parents=True, exist_ok=True)
        return path


class Workspace:
    """`$OWNLM_HOME`, else `./workspace`. Nothing is created before something is written."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("OWNLM_HOME") or "workspace").absolute()

    # ---- finding

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """Every complete artifact, oldest first; folders whose manifest cannot be read are left out."""
        return self._present((kind,) if kind else KINDS)

    def _present(self, kinds: Iterable[str]) -> list[Artifact]:
        found = []
        for kind in kinds:
            for manifest in (self.root / kind).glob(f"*/{MANIFEST}"):
                try:
                    # `created` counts whole seconds; the file's time tells which of two came first.
                    found.append((Artifact.read(manifest.parent), manifest.stat().st_mtime_ns))
                except (ArtifactDamaged, OSError):
                    continue
        return [artifact for artifact, _ in sorted(found, key=lambda each: (each[0].created, each[1]))]

    def by_id(self, identifier: str) -> Artifact:
        """The artifact with exactly this id.

        Raises:
            ArtifactNotFound: there is none.
            ArtifactDamaged: its manifest cannot be read.
        """
        for kind in KINDS:
            for folder in self._folders(kind, identifier):
                return Artifact.read(folder)
        raise ArtifactNotFound(f"No artifact has the id {identifier}. `ownlm ls` lists what there is.")

    def resolve(self, name: str, kinds: Iterable[str] = KINDS) -> Artifact:
        """An artifact by alias, id (or its first 4 or more digits), `name-id`, or name (then the newest).

        Raises:
            ArtifactNotFound: nothing matches, or a short id is ambiguous; the message lists what there is.
            ArtifactDamaged: it exists and its manifest cannot be read.
        """
        kinds = tuple(kinds)
        aliases = self.aliases()
        if name in aliases:
            artifact = self.by_id(aliases[name])
            if artifact.kind in kinds:
                return artifact
        for kind in kinds if NAME.fullmatch(name) else ():
            for folder in (self.root / kind / name, *self._folders(kind, name)):
                if folder.is_dir():
                    return Artifact.read(folder)
        present = self._present(kinds)
        by_id = [artifact for artifact in present if len(name) >= 4 and artifact.id.startswith(name)]
        if len(by_id) == 1:
            return by_id[0]
        by_name = [artifact for artifact in present if artifact.name == name]
        if by_name:
            return by_name[-1]
        known = sorted({*(a.name for a in present), *(k for k, v in aliases.items() if v in {a.id for a in present})})
        listed = ", ".join(known) if known else "nothing yet; `ownlm demo` builds a first model"
        what = " or ".join(kinds) if len(kinds) <= 2 else "artifact"
        trouble = "stands for several ids" if by_id else "is not known"
        raise ArtifactNotFound(f"The {what} '{name[:100]}' {trouble}. There is: {listed}.")

    def _folders(self, kind: str, identifier: str) -> list[Path]:
        """The folders of a kind whose name ends with this id."""
        return sorted((self.root / kind).glob(f"*-{glob.escape(identifier)}")) if NAME.fullmatch(identifier) else []

    # ---- building

    def make(
        self,
        kind: str,
        name: str,
        build: Callable[[Build], dict[str, Any]],
        *,
        inputs: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        code_version: int = 1,
        resumable: bool = False,
    ) -> tuple[Artifact, bool]:
        """The artifact for these inputs and settings, and whether it was there already.

        If it exists and is whole it is returned as it is. Else `build` fills `Build.folder` and returns metrics; then
        the folder is hashed, gets its manifest and is renamed into place. What a killed build left is wiped, or with
        `resumable` handed to the next one.

        Raises:
            ArtifactBusy: another process is building the same artifact.
            ArtifactDamaged: it exists and a file is missing, cut short or changed.
            DiskFull: no space is left; nothing half-made lies under a real name.
            OwnLMError: `name` cannot be part of a folder's name.
        """
        check_name(name)
        inputs, settings = inputs or {}, settings or {}
        identifier = artifact_id(kind, inputs, settings, code_version)
        existing = self._existing(kind, identifier)
        if existing is not None:
            return existing, True
        folder = self.root / BUILDING / f"{kind}-{name}-{identifier}"
        with atomic.disk_errors(self.root), self._lock(kind, name, identifier):
            existing = self._existing(kind, identifier)
            if existing is not None:
                return existing, True
            if not resumable:
                shutil.rmtree(folder, ignore_errors=True)
            for left in list(folder.rglob(".*.tmp")):  # half-written by a process that was killed: nobody else is here
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            head = {"kind": kind, "name": name, "id": identifier, "inputs": inputs, "settings": settings}
            (folder / RUN_STATE).mkdir(exist_ok=True)
            atomic.write_json(folder / RUN_STATE / "build.json", {**head, "pid": os.getpid(), "started": now()})
            started = time.monotonic()
            metrics = build(Build(kind, name, identifier, folder))
            unsealed = Artifact(
                path=folder, kind=kind, name=name, id=identifier, inputs=inputs, settings=settings, metrics=metrics,
                seconds=round(time.monotonic() - started, 3),
            )  # fmt: skip
            seal(folder, unsealed, leave_out=RUN_STATE)
            target = self.root / kind / f"{name}-{identifier}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, target)
            # Only now: until the artifact has its name, a killed build must find its checkpoint.
            shutil.rmtree(target / RUN_STATE, ignore_errors=True)
        return Artifact.read(target), False

    def builds(self) -> list[Path]:
        """The folders of builds that are under way or were cut off, newest first."""
        found = []
        for path in (self.root / BUILDING).glob(f"*/{RUN_STATE}/build.json"):
            folder = path.parent.parent
            try:
                found.append((folder.stat().st_mtime_ns, folder))
            except OSError:  # it was finished meanwhile, and has another name now
                continue
        return [folder for _, folder in sorted(found, reverse=True)]

    def remove(self, artifact: Artifact) -> None:
        """Deletes an artifact's folder and the aliases that point to it."""
        for alias, identifier in self.aliases().items():
            if identifier == artifact.id:
                (self.root / "aliases" / f"{alias}.json").unlink(missing_ok=True)
        # Renamed first: whoever looks meanwhile sees all of it or nothing.
        grave = self.root / BUILDING / f"removed-{artifact.label}-{os.getpid()}"
        grave.parent.mkdir(exist_ok=True)
        os.replace(artifact.path, grave)
        shutil.rmtree(grave)

    def _existing(self, kind: str, identifier: str) -> Artifact | None:
        for folder in self._folders(kind, identifier):
            artifact = Artifact.read(folder)
            artifact.verify()
            shutil.rmtree(folder / RUN_STATE, ignore_errors=True)  # a kill just after the renaming leaves it
            return artifact
        return None

    @contextmanager
    def _lock(self, kind: str, name: str, identifier: str) -> Iterator[None]:
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{identifier}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ArtifactBusy(
                f"Another process is building the {kind} {name}-{identifier} at the moment. "
                "Wait for it, or stop it, and run the command again."
            ) from None
        try:
            yield
        finally:
            lock.release()

    # ---- aliases

    def aliases(self) -> dict[str, str]:
        """Alias -> artifact id."""
        found = {}
        for path in sorted((self.root / "aliases").glob("*.json")):
            try:
                found[path.stem] = str(json.loads(path.read_text("utf-8"))["id"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def point(self, alias: str, artifact: Artifact) -> None:
        """Lets `alias` stand for `artifact`, atomically: a server that looks it up sees the old or the new one.

        Raises:
            OwnLMError: `alias` cannot be a file's name.
        """
        check_name(alias)
        atomic.write_json(self.root / "aliases" / f"{alias}.json", {"id": artifact.id, "kind": artifact.kind})
