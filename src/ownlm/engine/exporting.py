"""Leaving with a model: as the plain folder that transformers and vLLM open, or as the one file of llama.cpp."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ownlm.data.licence import UNKNOWN
from ownlm.engine import hub
from ownlm.engine.importing import size
from ownlm.engine.origin import licence_of
from ownlm.runtime import atomic
from ownlm.runtime.errors import ArtifactNotFound, ModelNotFound, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

if TYPE_CHECKING:
    from ownlm.model.gguf.write import Written
    from ownlm.model.quantised import Scheme

CARD = "README.md"
LARGE = 1_000_000
"""From so many bytes on it is told beforehand how many there are."""


@dataclass(frozen=True)
class Exportable:
    """A model on this disk: its folder, what people call it, its licence, and the artifact where it is one."""

    folder: Path
    name: str
    licence: str
    artifact: Artifact | None = None


def exportable(model: str, workspace: Workspace) -> Exportable:
    """The model that MODEL names.

    Raises:
        ModelNotFound: nothing has that name; the message lists what there is.
        ArtifactDamaged: a file of it was cut short or changed.
        OwnLMError: it is on another machine.
    """
    if model.startswith("openai:"):
        raise OwnLMError(f"{model} is on another machine: there is nothing to export.")
    if model.startswith("hf:"):
        folder = hub.download(hub.find(model.removeprefix("hf:")))
        return Exportable(folder, model.rpartition("/")[2], licence_of(folder).name)
    try:
        artifact = workspace.resolve(model, ("model",))
    except ArtifactNotFound as error:
        folder = Path(model)
        if not (folder / "config.json").is_file():
            raise ModelNotFound(str(error)) from None
        return Exportable(folder, folder.resolve().name, licence_of(folder).name)
    artifact.verify()
    licence = str(artifact.settings.get("licence") or licence_of(artifact.path).name)
    return Exportable(artifact.path, artifact.name, licence, artifact)


def export_folder(
    model: Exportable,
    target: Path,
    workspace: Workspace,
    screen: Screen,
    force: bool = False,
    quantize: str | None = None,
) -> Path:
    """Copies the model's files, and nothing else that lies in its folder, to `target`.

    `quantize` ("int8", "int4", "int4:GROUP") writes its matrices in that form instead.

    A model made here gets the card of its report, if there is one, as README.md. `force` lets it take the place of
    another model's folder. It appears at once, when it is complete.

    Raises:
        OwnLMError: `target` exists and is not empty (without `force`), is no model folder (with it), or the model's
            own folder is not whole.
    """
    from ownlm.model.checkpoint import Checkpoint
    from ownlm.model.folder import config_data, model_files

    scheme = None if quantize is None else parse_scheme(quantize)
    if quantize is not None or config_data(model.folder).get("quantization_config") is None:
        Checkpoint(model.folder)
    _may_take(target, force)
    files = {path.relative_to(model.folder).as_posix(): path for path in model_files(model.folder)}
    if scheme is not None:
        files = {name: path for name, path in files.items() if name != "config.json" and not _weights(name)}
    card = _card(model, workspace)
    if CARD not in files and card is not None:
        files[CARD] = card
    total = sum(path.stat().st_size for path in files.values())
    if total >= LARGE:
        screen.say(f"Copying {len(files)} files, {size(total)}, to {target}.")
    with atomic.disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            aside.chmod(0o755)
            with screen.bar("Copying", total, "bytes") as bar:
                done = 0
                for name, path in files.items():
                    (aside / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(path, aside / name)
                    done += path.stat().st_size
                    bar.update(done)
            if scheme is not None:
                _write_quantised(model.folder, aside, scheme)
            _replace(aside, target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return target


def parse_scheme(text: str) -> Scheme:
    """The way of quantising that `--quantize` names.

    Raises:
        OwnLMError: there is none of that name; the message lists them.
    """
    from ownlm.model.quantised import Scheme

    return Scheme.parse(text)


def _weights(name: str) -> bool:
    return name.endswith((".safetensors", ".safetensors.index.json"))


def _write_quantised(source: Path, target: Path, scheme: Scheme) -> None:
    """Config and weights of `source` with its matrices quantised; the config keeps all of its other keys."""
    from ownlm.model.files import load_model, save_weights
    from ownlm.model.folder import config_data, read_config
    from ownlm.model.quantised import quantise_module

    decoder = load_model(source, replace=partial(quantise_module, scheme=scheme))
    save_weights(target, decoder, read_config(source)[1])
    written = config_data(target)["quantization_config"]
    atomic.write_json(target / "config.json", {**config_data(source), "quantization_config": written})


def export_gguf(model: Exportable, target: Path, file_type: str, screen: Screen, force: bool = False) -> Written:
    """Writes the model as one GGUF file of `file_type`, with tokenizer, chat template, name and licence inside.

    Raises:
        OwnLMError: `target` exists (without `force`), the type cannot be written, or llama.cpp would compute something
            of the model otherwise; see `GgufPlan`.
    """
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.model.gguf.write import GgufPlan

    if target.is_dir() or (target.exists() and not force):
        what = "is a folder; name a file" if target.is_dir() else "exists already; add --force to replace it"
        raise OwnLMError(f"{target} {what}.")
    plan = GgufPlan(model.folder, file_type)
    if plan.bytes >= LARGE:
        screen.say(f"Writing {size(plan.bytes)} to {target}.")
    licence = "" if model.licence == UNKNOWN else model.licence
    written = plan.write(target, name=model.name, licence=licence)
    target.chmod(0o644)  # other programs, other users' too, are to open it
    prefix = load_tokenizer(model.folder).prefix
    if prefix and not plan.table.add_begin:
        begin = "".join(plan.table.texts[each] for each in prefix)
        note = f"Plain text that is no chat begins with {begin} here; llama.cpp does not add it: write it yourself."
        written = dataclasses.replace(written, notes=(*written.notes, note))
    return written


def _may_take(target: Path, force: bool) -> None:
    """
    Raises:
        OwnLMError: something else is there that would be lost.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise OwnLMError(f"{target} exists already; add --force to replace it, or name another folder.")
    if not (target / "config.json").is_file() or (target / "artifact.json").is_file():
        raise OwnLMError(f"{target} is no exported model: it is not replaced. Name another folder.")


def _replace(aside: Path, target: Path) -> None:
    """Puts `aside` in the place of `target`, whose old content goes only then."""
    if not target.exists():
        os.replace(aside, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    os.replace(target, old / "model")
    try:
        os.replace(aside, target)
    except BaseException:
        os.replace(old / "model", target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _card(model: Exportable, workspace: Workspace) -> Path | None:
    """The model card of the newest report on this model."""
    if model.artifact is None:
        return None
    identifier = model.artifact.id
    reports = [each for each in workspace.artifacts("report") if each.inputs.get("model") == identifier]
    return reports[-1].path / "model-card.md" if reports and "model-card.md" in reports[-1].files else None
