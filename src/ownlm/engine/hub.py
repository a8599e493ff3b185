"""Models of the Hugging Face Hub: how large they are, and their files in the local cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownlm.model.folder import INDEX, PICKLES, is_model_file
from ownlm.runtime.errors import ModelNotFound, OwnLMError


@dataclass(frozen=True)
class HubModel:
    """A commit of a repository, and the sizes in bytes of those of its files that belong to the model.

    Without a network `files` is None: then only what the cache has can be had.
    """

    repository: str
    commit: str
    files: dict[str, int] | None

    @property
    def bytes(self) -> int:
        """What there is to download, if nothing of it is in the cache."""
        return sum((self.files or {}).values())


def find(repository: str) -> HubModel:
    """What the hub has under this name now.

    Raises:
        ModelNotFound: no such repository, or no network and nothing of it in the cache.
        OwnLMError: it has no safetensors files.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(repository, files_metadata=True)
    except (HfHubHTTPError, HFValidationError, ValueError) as error:
        raise not_found(repository, error) from error
    except Exception as error:  # every HTTP library has its own "no network"
        try:
            cached = try_to_load_from_cache(repository, "config.json")
        except (HFValidationError, ValueError):
            cached = None
        if isinstance(cached, str):
            return HubModel(repository, Path(cached).parent.name, None)
        raise not_found(repository, error) from error
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    weights = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
    if not weights:
        pickles = [name for name in sizes if name.endswith(PICKLES)]
        ggufs = [name for name in sizes if name.endswith(".gguf")]
        has = f"only pickles ({', '.join(pickles[:3])}), which can run code when they are opened" if pickles else (
            f"GGUF files; download one ({ggufs[0]}) and import that" if ggufs else "no .safetensors file"
        )  # fmt: skip
        raise OwnLMError(f"hf:{repository} has {has}.")
    # A second copy of the weights, in the layout of the makers' own program.
    kept = [name for name in weights if not name.startswith("consolidated")] or weights
    files = {name: size for name, size in sizes.items() if name in kept or is_model_file(name) or name == INDEX}
    return HubModel(repository, info.sha or "", files)


def download(model: HubModel) -> Path:
    """The folder of the local cache that holds the model's files.

    Raises:
        ModelNotFound: the hub cannot be reached, and the cache has not everything.
    """
    from huggingface_hub import snapshot_download

    patterns = None if model.files is None else list(model.files)
    try:
        return Path(
            snapshot_download(
                model.repository, revision=model.commit, allow_patterns=patterns, local_files_only=model.files is None
            )
        )
    except Exception as error:  # every HTTP library has its own "no network"
        raise not_found(model.repository, error) from error


def not_found(repository: str, error: Exception) -> ModelNotFound:
    """One sentence for all the ways in which a hub can be out of reach."""
    return ModelNotFound(
        f"hf:{repository} cannot be had from the Hugging Face Hub ({type(error).__name__}): "
        "check the name and the network, or give the path of a folder."
    )
