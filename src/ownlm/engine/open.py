"""MODEL names: from an alias, id, folder, `hf:` or `openai:` name to something that answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ownlm.engine.request import LanguageModel, ModelFacts
from ownlm.runtime.errors import ArtifactNotFound, ModelNotFound, OwnLMError
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Workspace

if TYPE_CHECKING:
    from ownlm.engine.local import LocalModel


def open_model(name: str, workspace: Workspace, *, precision: str = "float32") -> LanguageModel:
    """The model that MODEL names.

    MODEL is the alias, name or id of a model artifact, a model folder, `hf:org/name`, or
    `openai:BASE_URL#model` for a remote endpoint.

    Raises:
        ModelNotFound: nothing has that name; the message lists what there is.
        OwnLMError: it exists and cannot be opened (what is wrong is said).
    """
    if name.startswith("openai:"):
        from ownlm.engine.remote import RemoteModel

        return RemoteModel.from_name(name)
    if name.startswith("hf:"):
        return open_folder(_download(name.removeprefix("hf:")), name, precision=precision)
    try:
        artifact = workspace.resolve(name, ("model",))
    except ArtifactNotFound as error:
        folder = Path(name)
        if (folder / "config.json").is_file():
            return open_folder(folder, folder.resolve().name, precision=precision)
        raise ModelNotFound(str(error)) from None
    artifact.verify()
    return open_artifact(artifact, name, precision=precision)


def open_artifact(artifact: Artifact, name: str | None = None, *, precision: str = "float32") -> LocalModel:
    """The model of a model artifact, with what was measured of it."""
    measured = artifact.metrics.get("heldout_bits_per_byte")
    stage = str(artifact.settings.get("stage", ""))
    return open_folder(
        artifact.path,
        name or artifact.name,
        identifier=artifact.id,
        stage=stage,
        heldout_bits_per_byte=measured if isinstance(measured, float) else None,
        precision=precision,
    )


def open_folder(
    folder: Path,
    name: str,
    *,
    identifier: str = "",
    stage: str = "",
    heldout_bits_per_byte: float | None = None,
    precision: str = "float32",
) -> LocalModel:
    """The model of a Hugging Face model folder.

    Raises:
        OwnLMError: the folder's config, weights or tokenizer cannot be read.
    """
    from ownlm.data.chat_format import load_chat_format
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.engine.local import LocalModel
    from ownlm.model.files import load_model
    from ownlm.model.kernels import Kernels, use

    decoder = load_model(folder)
    if precision not in ("float32", "bfloat16"):
        raise OwnLMError(f"precision={precision!r}: it is float32 or bfloat16.")
    kernels = Kernels("bfloat16", "tiled") if precision == "bfloat16" else Kernels()
    tokenizer = load_tokenizer(folder)
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
    return LocalModel(use(decoder, kernels), tokenizer, chat, facts)


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


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja", "LICENSE*", "README.md"]
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelNotFound(
            f"hf:{repository} cannot be had from the Hugging Face Hub ({type(error).__name__}): "
            "check the name and the network, or give the path of a folder."
        ) from error
