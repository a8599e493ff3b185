"""A look into a model that is not opened: a folder's or a hub's, from its config and the headers of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ownlm.runtime.errors import OwnLMError

if TYPE_CHECKING:
    from ownlm.model.anatomy import Anatomy


def is_model(name: str) -> bool:
    """Whether a name is that of a model on the hub or of a model folder, rather than of an artifact."""
    return name.startswith("hf:") or (Path(name) / "config.json").is_file()


def look(name: str, length: int) -> Anatomy:
    """The anatomy of a model folder or of `hf:org/name`, of which config and headers are fetched, no weights.

    Raises:
        ModelNotFound: the hub has no such model, or cannot be reached.
        OwnLMError: no safetensors files, or a config that is not understood.
    """
    from ownlm.model.anatomy import anatomy_of_folder

    if name.startswith("hf:"):
        return _from_hub(name.removeprefix("hf:"), length)
    return anatomy_of_folder(Path(name), length)


def _from_hub(repository: str, length: int) -> Anatomy:
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, NotASafetensorsRepoError

    from ownlm.engine.hub import not_found
    from ownlm.model.anatomy import Header, anatomy_of

    if (found := _from_cache(repository, length)) is not None:
        return found
    try:
        path = Path(hf_hub_download(repository, "config.json"))
        metadata = get_safetensors_metadata(repository)
    except NotASafetensorsRepoError:
        raise OwnLMError(f"hf:{repository} has no .safetensors file.") from None
    except EntryNotFoundError:
        raise OwnLMError(f"hf:{repository} is no model that is read here: it has no config.json.") from None
    except Exception as error:  # every HTTP library has its own "no network"
        raise not_found(repository, error) from error
    tensors = {name: each for file in metadata.files_metadata.values() for name, each in file.tensors.items()}
    headers = {name: Header(each.dtype, tuple(each.shape)) for name, each in tensors.items()}
    return anatomy_of(json.loads(path.read_text("utf-8")), headers, f"hf:{repository}", length)


def _from_cache(repository: str, length: int) -> Anatomy | None:
    """What was downloaded before; None where that is not the whole model."""
    from huggingface_hub import snapshot_download

    from ownlm.model.anatomy import anatomy_of_folder

    try:
        return anatomy_of_folder(Path(snapshot_download(repository, local_files_only=True)), length)
    except Exception:  # nothing, a part only, or no such name: the hub will say
        return None
