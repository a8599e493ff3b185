"""MODEL names: from an alias, id, folder, `hf:` or `openai:` name to something that answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ownlm.engine.request import LanguageModel, ModelFacts
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, ModelNotFound, OwnLMError
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Workspace

if TYPE_CHECKING:
    from ownlm.engine.adapted import SharedBase
    from ownlm.engine.local import LocalModel
    from ownlm.model.decoder import Decoder


@dataclass(frozen=True)
class Weights:
    """How a model's weights are held in memory.

    `precision` "auto" keeps bfloat16 weights as they are stored and holds all others in float32; "float32" and
    "bfloat16" say which. `quantize` "int8", "int4" or "int4:GROUP" holds the matrices in 8 or 4 bits.
    """

    precision: str = "auto"
    quantize: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise OwnLMError(f"precision={self.precision!r}: it is auto, float32 or bfloat16.")


def open_model(name: str, workspace: Workspace, weights: Weights = Weights()) -> LanguageModel:
    """The model that MODEL names.

    MODEL is the alias, name or id of a model or adapter artifact, a model or adapter folder, `hf:org/name`, or
    `openai:BASE_URL#model` for a remote endpoint.

    Raises:
        ModelNotFound: nothing has that name; the message lists what there is.
        OwnLMError: it exists and cannot be opened (what is wrong is said).
    """
    if name.startswith("openai:"):
        from ownlm.engine.remote import RemoteModel

        if weights != Weights():
            raise OwnLMError(f"{name} is on another machine: how its weights are held is decided there.")
        return RemoteModel.from_name(name)
    if name.startswith("hf:"):
        from ownlm.engine import hub

        return open_folder(hub.download(hub.find(name.removeprefix("hf:"))), name, weights=weights)
    from ownlm.engine.adapted import open_adapted

    if (adapted := open_adapted(name, workspace, weights=weights)) is not None:
        return adapted
    try:
        artifact = workspace.resolve(name, ("model",))
    except ArtifactNotFound as error:
        folder = Path(name)
        if (folder / "config.json").is_file():
            return open_folder(folder, folder.resolve().name, weights=weights)
        raise ModelNotFound(str(error)) from None
    artifact.verify()
    model = open_artifact(artifact, name, weights=weights)
    _use_plan(artifact, model, workspace)
    return model


def _use_plan(artifact: Artifact, model: LocalModel, workspace: Workspace) -> None:
    """Sets up to how many rows quantised weights go through packed kernels, as it was measured for the model's plan."""
    from ownlm.model.quantised import set_packed_rows

    try:
        plan = workspace.by_id(artifact.inputs.get("plan", "")).path / "plan.json"
        measured = json.loads(plan.read_text("utf-8")).get("packed_rows", {})
    except (ArtifactNotFound, ArtifactDamaged, OSError, ValueError):
        return
    set_packed_rows(
        model.decoder, {bits: measured[name] for name, bits in (("int8", 8), ("int4", 4)) if name in measured}
    )


def open_artifact(artifact: Artifact, name: str | None = None, *, weights: Weights = Weights()) -> LocalModel:
    """The model of a model artifact, with what was measured of it."""
    measured = artifact.metrics.get("heldout_bits_per_byte")
    stage = str(artifact.settings.get("stage", ""))
    return open_folder(
        artifact.path,
        name or artifact.name,
        identifier=artifact.id,
        stage=stage,
        heldout_bits_per_byte=measured if isinstance(measured, float) else None,
        weights=weights,
    )


def open_folder(
    folder: Path,
    name: str,
    *,
    identifier: str = "",
    stage: str = "",
    heldout_bits_per_byte: float | None = None,
    weights: Weights = Weights(),
) -> LocalModel:
    """The model of a Hugging Face model folder.

    Raises:
        OwnLMError: the folder's config, weights or tokenizer cannot be read.
    """
    from ownlm.data.chat_format import load_chat_format
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.engine.local import LocalModel

    tokenizer = load_tokenizer(folder)
    decoder = open_decoder(folder, weights)
    if tokenizer.vocab_size > decoder.config.vocabulary:
        raise OwnLMError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, "
            f"the embedding only {decoder.config.vocabulary}."
        )
    chat = load_chat_format(folder, tokenizer)
    facts = ModelFacts(
        name=name,
        id=identifier or folder_id(folder),
        context=decoder.config.context,
        parameters=decoder.config.parameters,
        heldout_bits_per_byte=heldout_bits_per_byte,
        stage=stage,
    )
    return LocalModel(decoder, tokenizer, chat, facts)


def open_decoder(folder: Path, weights: Weights = Weights()) -> Decoder:
    """The decoder of a model folder, its weights held as asked, with the kernels that suit answering.

    Quantised weights are multiplied in bfloat16 where the processor has instructions for it.
    """
    import torch

    from ownlm.model.checkpoint import Checkpoint
    from ownlm.model.files import load_model
    from ownlm.model.folder import config_data
    from ownlm.model.kernels import Kernels, use
    from ownlm.model.quantised import Scheme, quantise_module
    from ownlm.runtime.device import multiplies_bfloat16

    replace = None
    if weights.quantize is not None:
        replace = partial(quantise_module, scheme=Scheme.parse(weights.quantize))
    if replace is not None or config_data(folder).get("quantization_config") is not None:
        narrow = weights.precision == "bfloat16" or (weights.precision == "auto" and multiplies_bfloat16())
        decoder = load_model(folder, replace=replace)
    else:
        stored = weights.precision == "auto" and Checkpoint(folder).precision == torch.bfloat16
        narrow = weights.precision == "bfloat16" or stored
        decoder = load_model(folder, dtype=torch.bfloat16 if narrow else torch.float32)
    return use(decoder, Kernels("bfloat16", "tiled") if narrow else Kernels())


class ModelOpener:
    """Opens models, each base only once for itself and for all of its adapters; for a server that holds several.

    A base stays in memory as long as somebody holds it or one of its adapters.
    """

    def __init__(self, weights: Weights = Weights()) -> None:
        self.weights = weights
        self._bases: WeakValueDictionary[Path, SharedBase] = WeakValueDictionary()
        self._lock = Lock()

    def __call__(self, name: str, workspace: Workspace) -> LanguageModel:
        """See `open_model`."""
        from ownlm.engine.adapted import SharedBase, open_adapted
        from ownlm.engine.local import LocalModel

        with self._lock:
            if (adapted := open_adapted(name, workspace, weights=self.weights, shared=self._bases)) is not None:
                return adapted
            place = _place(name, workspace)
            held = None if place is None else self._bases.get(place)
            if held is not None:
                return held.model
            model = open_model(name, workspace, self.weights)
            if place is not None and isinstance(model, LocalModel):
                model.keeps = self._bases[place] = SharedBase(model)
            return model


def _place(name: str, workspace: Workspace) -> Path | None:
    """The folder of the model that MODEL names, where it has one here."""
    try:
        return workspace.resolve(name, ("model",)).path.resolve()
    except ArtifactNotFound:
        folder = Path(name)
        return folder.resolve() if (folder / "config.json").is_file() else None


def folder_id(folder: Path) -> str:
    """12 hexadecimal digits of the contents that decide what the model answers: another model has another id."""
    digest = hashlib.sha256()
    names = (
        "*.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "additional_chat_templates/*.jinja",
    )  # fmt: skip
    for path in sorted(path for name in names for path in folder.glob(name)):
        digest.update(f"{path.relative_to(folder).as_posix()}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()[:12]
