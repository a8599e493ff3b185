"""Checkpoints that several processes write together, and that any number of processes can go on from (torch's DCP)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic
from ownlm.runtime.errors import DiskFull
from ownlm.train.checkpoint import Progress, learning, remove_old, state_tensors
from ownlm.train.distributed import reshard
from ownlm.train.exchange import room_for
from ownlm.train.world import World

NAME = "checkpoint-{step:08d}.dcp"
MANIFEST = "manifest.json"
_LITTLE = 1 << 20

T = TypeVar("T")


def save_sharded(
    folder: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer], progress: Progress, world: World
) -> Path:
    """Writes a folder aside, with the SHA-256 of its files, and renames it; every process must call this.

    Several machines need `folder` on a file system that they share. Where the disk is full, older checkpoints but the
    newest make room.

    Raises:
        DiskFull: no space is left, in any process's file; the last checkpoint before it is kept.
    """
    path = folder / NAME.format(step=progress.step)
    try:
        _write(path, decoder, optimisers, progress, world)
    except DiskFull:
        if not world.any(world.main and remove_old(folder, 1)):
            raise
        _write(path, decoder, optimisers, progress, world)
    return path


def load_sharded(
    path: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer], world: World
) -> Progress | None:
    """Restores a checkpoint, by however many processes it was written; None where a file is missing or changed.

    Nothing is unpickled before all hashes agree.
    """
    manifest = _read_manifest(path)
    if world.any(manifest is None or _damaged(path, manifest["files"], world)) or manifest is None:
        return None
    reader = FileSystemReader(path)
    reshard(decoder)
    owners = {id(p): optimiser for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]}
    parameters = dict(learning(decoder))
    tensors: dict[str, Any] = {f"weights/{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors["random"] = torch.get_rng_state()
    states: dict[str, dict[str, Tensor]] = {}
    for key, stored in reader.read_metadata().state_dict_metadata.items():
        if key.startswith("state/") and isinstance(stored, TensorStorageMetadata):
            name, field = key.removeprefix("state/").rsplit("/", 1)
            tensors[key] = room_for(stored.size, stored.properties.dtype, parameters[name])
            states.setdefault(name, {})[field] = tensors[key]
    with _alone_on_purpose():
        load(tensors, storage_reader=reader, no_dist=world.size == 1)
    for name, state in states.items():
        owners[id(parameters[name])].state[parameters[name]] = state
    torch.set_rng_state(tensors["random"])
    return Progress(**manifest["progress"])


def _write(
    path: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer], progress: Progress, world: World
) -> None:
    aside = path.with_name(f".{path.name}.tmp")

    def begin() -> None:
        if world.main:
            for left in path.parent.glob(".checkpoint-*.dcp.tmp"):
                shutil.rmtree(left)
            aside.mkdir(parents=True)

    def write() -> None:
        with _alone_on_purpose():
            reshard(decoder)
            save(state_tensors(decoder, optimisers), checkpoint_id=aside, no_dist=world.size == 1)

    def hashes() -> dict[str, str]:
        # DCP names each file after the rank that wrote it.
        own = [file for file in aside.iterdir() if _writer(file.name) == world.rank]
        for file in own:
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        return {file.name: _sha256(file) for file in own}

    def publish() -> None:
        if world.main:
            files = {name: value for part in parts for name, value in part.items()}
            atomic.write_json(aside / MANIFEST, {"progress": asdict(progress), "processes": world.size, "files": files})
            shutil.rmtree(path, ignore_errors=True)
            os.replace(aside, path)

    _together(begin, aside, world)
    _together(write, aside, world)
    parts = world.collect(_together(hashes, aside, world))
    _together(publish, aside, world)


def _together(action: Callable[[], T], aside: Path, world: World) -> T:
    """What `action` gives, once it worked in every process; where it failed in one it fails in all.

    Raises:
        DiskFull: that was the reason.
    """
    problem: BaseException | None = None
    try:
        found = action()
    except (CheckpointException, OSError, RuntimeError, DiskFull) as error:
        problem = error
    if not world.any(problem is not None):
        return found
    full = world.any(problem is not None and _no_room(problem, aside.parent))
    if world.main:
        shutil.rmtree(aside, ignore_errors=True)
    if full:
        raise atomic.disk_full(aside.parent) from problem
    raise problem or RuntimeError(f"another process could not write its part of {aside}")


@contextmanager
def _alone_on_purpose() -> Iterator[None]:
    """DCP warns of one process alone, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, if it is one whose files all lie in the folder itself."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        files, _ = manifest["files"], Progress(**manifest["progress"])
        complete = {file.name for file in path.iterdir()} == {*files, MANIFEST} and all(map(_plain, files.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def _plain(value: Any) -> bool:
    return isinstance(value, str)


def _writer(name: str) -> int:
    """The rank that wrote a file: `__{rank}_{part}.distcp`; everything else is the main one's."""
    return int(name.split("_")[2]) if name.startswith("__") else 0


def _damaged(path: Path, files: dict[str, str], world: World) -> bool:
    """Whether one of this process's share of the files is not what the manifest says."""
    try:
        return any(_sha256(path / name) != files[name] for name in sorted(files)[world.rank :: world.size])
    except OSError:
        return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_room(error: BaseException, folder: Path) -> bool:
    """Whether an error of DCP, which wraps those of all processes, comes from a full disk."""
    if isinstance(error, DiskFull):
        return True
    causes: list[BaseException] = [error]
    if isinstance(error, CheckpointException):
        causes += [failure[0] for failure in error.failures.values()]
    if any(map(atomic.no_room, causes)):
        return True
    # torch's own writer tells no reason.
    return shutil.disk_usage(folder).free < _LITTLE
