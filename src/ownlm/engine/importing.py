"""Bringing a model in: from the hub, a folder or a GGUF file to an artifact of the workspace."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.engine import hub
from ownlm.engine.origin import Licence, Origin, digest, licence_of, named
from ownlm.runtime.errors import ArtifactDamaged, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Build, Workspace, check_name

CODE_VERSION = 1
CHUNK = 1 << 24


@dataclass(frozen=True)
class Imported:
    """The artifact, whether it was there already, its licence, and what the user should know besides."""

    artifact: Artifact
    reused: bool
    licence: Licence
    notes: tuple[str, ...] = ()


def import_model(source: str, workspace: Workspace, screen: Screen, name: str = "") -> Imported:
    """`source` (hf:org/name, a model folder or a GGUF file) as a model artifact; files are taken over byte for byte.

    The same content again is the same artifact. With a `name` that an artifact of this content does not have, the name
    becomes its alias. A GGUF file becomes a model folder; see `read_gguf`.

    Raises:
        ModelNotFound: the hub has no such model, or cannot be reached.
        OwnLMError: there is nothing at `source`, or something that cannot be read; nothing is left of it.
    """
    if name:
        check_name(name)
    if source.startswith("hf:"):
        return _from_hub(source.removeprefix("hf:"), workspace, screen, name)
    path = Path(source)
    if path.is_dir():
        label = path.resolve().name
        return _from_folder(path, Origin(label, licence=licence_of(path)), workspace, screen, name or label)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return _from_gguf(path, workspace, screen, name)
    raise OwnLMError(f"{source} is none of hf:ORG/NAME, a model folder and a .gguf file: there is nothing to import.")


def _from_hub(repository: str, workspace: Workspace, screen: Screen, name: str) -> Imported:
    found = hub.find(repository)
    if found.files is None:
        screen.warn("The hub cannot be reached; what the local cache has is taken.")
    else:
        screen.say(f"Downloading up to {size(found.bytes)} in {len(found.files)} files from {repository}.")
    folder = hub.download(found)
    origin = Origin(f"hf:{repository}", found.commit, licence_of(folder))
    return _from_folder(folder, origin, workspace, screen, name or repository.rpartition("/")[2])


def _from_folder(folder: Path, origin: Origin, workspace: Workspace, screen: Screen, name: str) -> Imported:
    from ownlm.model.folder import model_files

    facts = check_folder(folder)  # before anything is copied; what is copied are the same bytes
    paths = {path.relative_to(folder).as_posix(): path for path in model_files(folder)}
    total = sum(path.stat().st_size for path in paths.values())
    screen.say(f"Importing {len(paths)} files, {size(total)}.")
    files = {}
    with screen.bar("Reading", total, "bytes") as bar:
        done = 0
        for inside, path in paths.items():
            files[inside] = digest(path)
            done += path.stat().st_size
            bar.update(done)
    origin = Origin(origin.source, origin.revision, origin.licence, files)

    def build(target: Build) -> dict[str, Any]:
        _take(paths, target.folder, total, screen, link=origin.source.startswith("hf:"))
        for inside, expected in files.items():
            if sha256_of(target.folder / inside) != expected:
                raise ArtifactDamaged(f"{paths[inside]} changed while it was imported; run the command again.")
        return facts

    return _make(workspace, name, origin, build)


def _from_gguf(path: Path, workspace: Workspace, screen: Screen, name: str) -> Imported:
    from ownlm.model.gguf.read import read_gguf
    from ownlm.model.gguf.reader import GgufFile

    file = GgufFile(path)
    stated = file.fields.text("general.license", "")
    licence = (
        Licence(named(stated), "general.license", file.fields.text("general.license.link", "")) if stated else None
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(file.types.items()))
    screen.say(f"Reading {size(path.stat().st_size)} of GGUF ({kinds}); it becomes {size(file.bytes)} of safetensors.")
    origin = Origin(path.name, licence=licence or Licence(), files={path.name: sha256_of(path)})

    def build(target: Build) -> dict[str, Any]:
        read_gguf(path, target.folder)
        return check_folder(target.folder)

    quantised = sorted(set(file.types) - {"f32", "f16", "bf16"})
    notes: tuple[str, ...] = ()
    if quantised:
        notes = (f"Blocks of {', '.join(quantised)} became fp16 numbers, off by at most a 2000th of each.",)
    made = _make(workspace, name or path.stem, origin, build)
    return Imported(made.artifact, made.reused, made.licence, notes)


def _make(workspace: Workspace, name: str, origin: Origin, build: Callable[[Build], dict[str, Any]]) -> Imported:
    """The artifact, named as asked; what a failed build left is removed at once."""
    name = re.sub(r"[^\w.+-]+", "-", name).strip("-.+")[:120] or "imported"
    settings = {"stage": "imported", **origin.settings()}

    def whole(target: Build) -> dict[str, Any]:
        try:
            return build(target)
        except BaseException:
            shutil.rmtree(target.folder, ignore_errors=True)
            raise

    artifact, reused = workspace.make("model", name, whole, settings=settings, code_version=CODE_VERSION)
    if artifact.name != name:
        workspace.point(name, artifact)
    return Imported(artifact, reused, origin.licence)


def check_folder(folder: Path) -> dict[str, Any]:
    """What an artifact records of a model folder, read from config, tokenizer and the weights' headers.

    Raises:
        OwnLMError: a config that is not understood, pickles, safetensors that are cut short or overlap, tensors that
            are missing, unexpected or of another shape, no tokenizer, or one larger than the embedding.
    """
    from ownlm.data.chat_format import load_chat_format
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.model.checkpoint import Checkpoint
    from ownlm.model.files import load_model
    from ownlm.model.folder import config_data

    if config_data(folder).get("quantization_config") is None:
        config = Checkpoint(folder).config
    else:
        config = load_model(folder).config  # quantised weights are checked by reading them
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocabulary:
        raise OwnLMError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the embedding only {config.vocabulary}."
        )
    load_chat_format(folder, tokenizer)
    return {"parameters": config.parameters, "context": config.context}


def _take(paths: dict[str, Path], folder: Path, total: int, screen: Screen, link: bool) -> None:
    """Copies files byte for byte. Those of the hub's cache, which nobody edits, are linked where the disk allows it."""
    done = 0
    with screen.bar("Copying", total, "bytes") as bar:
        for inside, path in paths.items():
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (link and _linked(path.resolve(), target)):
                with path.open("rb") as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, CHUNK)
            done += path.stat().st_size
            bar.update(done)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
