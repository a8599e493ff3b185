"""Model folders: written as Hugging Face users expect, read tensor by tensor from memory-mapped safetensors."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.model.checkpoint import Checkpoint
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family, Stored
from ownlm.model.families.qwen3 import family as default_family
from ownlm.model.folder import INDEX, PRECISIONS, WEIGHTS, config_data
from ownlm.model.layers import Embedding, Linear
from ownlm.model.quantised.files import load_quantised, quantised_tensors, quantization_config
from ownlm.model.quantised.layers import QuantisedWeight
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

SHARD_BYTES = 5_000_000_000
"""The size from which weights are written as several files, as Hugging Face does."""
Replace = Callable[[str, nn.Module], nn.Module]


def save_model(folder: Path, decoder: Decoder, tokenizer: AnyTokenizer, family: Family = default_family) -> None:
    """Writes config, weights in their precision, tokenizer with chat template, and generation settings into `folder`.

    Raises:
        OwnLMError: `family` has not all the choices of the decoder's config.
    """
    ends = {
        "eos_token_id": tokenizer.end_of_turn,
        "pad_token_id": tokenizer.end_of_text,
        "bos_token_id": tokenizer.begin_of_text,
    }
    save_weights(folder, decoder, family, ends)
    generation = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, **ends, "eos_token_id": sorted(tokenizer.stops)}
    atomic.write_json(folder / "generation_config.json", generation)
    tokenizer.save(folder, decoder.config.context)


def save_weights(
    folder: Path, decoder: Decoder, family: Family = default_family, more: dict[str, Any] | None = None
) -> None:
    """Writes `config.json` (with the keys of `more`) and the weights, in several files where they are large.

    Raises:
        OwnLMError: `family` has not all the choices of the decoder's config.
    """
    config = decoder.config
    data = family.write_config(config)
    if (read := family.read_config(data)) != config:
        raise OwnLMError(f"This decoder cannot be written as {family.model_type}: {_differences(config, read)}.")
    layout = family.tensors(config)
    quantised = quantization_config(decoder, layout, config.tied_embeddings)
    data["torch_dtype"] = PRECISIONS[decoder.norm.get_parameter("weight").dtype]
    if quantised is not None:
        data["quantization_config"] = quantised
    sizes = {stored.name: _stored_bytes(decoder, stored) for stored in layout}
    shards: list[list[Stored]] = [[]]
    size = 0
    for stored in layout:
        if shards[-1] and size + sizes[stored.name] > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(stored)
        size += sizes[stored.name]
    weight_map = {}
    for index, shard in enumerate(shards, 1):
        name = WEIGHTS if len(shards) == 1 else f"model-{index:05}-of-{len(shards):05}.safetensors"
        tensors = {key: tensor for stored in shard for key, tensor in _written(decoder, stored).items()}
        weight_map.update(dict.fromkeys(tensors, name))
        with atomic.aside(folder / name) as path, disk_errors():
            save_file(tensors, path, metadata={"format": "pt"})
    if len(shards) > 1:
        atomic.write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})
    atomic.write_json(folder / "config.json", {**data, **(more or {})})


def _written(decoder: Decoder, stored: Stored) -> dict[str, Tensor]:
    """What a file gets for one tensor of the checkpoint: itself, or the parts of its quantised form."""
    parts = quantised_tensors(stored, decoder)
    if parts is not None:
        return parts
    return {stored.name: stored.join([decoder.get_parameter(name).detach() for name in stored.parameters]).contiguous()}


def _stored_bytes(decoder: Decoder, stored: Stored) -> int:
    """About what `_written` takes up."""
    total = 0
    for name in stored.parameters:
        module = decoder.get_submodule(name.rpartition(".")[0])
        held = module.buffers() if isinstance(module, QuantisedWeight) else [decoder.get_parameter(name)]
        total += sum(tensor.nbytes for tensor in held)
    return total


@contextmanager
def disk_errors() -> Iterator[None]:
    """safetensors reports a full disk as an error of its own kind."""
    try:
        yield
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _differences(config: DecoderConfig, read: DecoderConfig) -> str:
    fields = [name for name in vars(config) if getattr(config, name) != getattr(read, name)]
    return ", ".join(f"its {name} is {getattr(config, name)!r}" for name in fields)


def load_model(
    folder: Path,
    compute_dtype: torch.dtype = torch.float32,
    dtype: torch.dtype | None = None,
    replace: Replace | None = None,
) -> Decoder:
    """Builds the decoder of a model folder and fills it from its safetensors files.

    `dtype` converts the weights; None keeps each in its stored precision. `replace` gets the name and the module of
    each matrix and embedding once it is filled, and gives what takes its place (a quantised one, say), so that the
    whole model is never there twice.

    A folder whose config has a `quantization_config` gives quantised modules, as they were written.

    Raises:
        OwnLMError: as `Checkpoint` and `load_quantised`; or a quantised model is to be quantised again.
    """
    data = config_data(folder)
    if data.get("quantization_config") is not None:
        if replace is not None:
            raise OwnLMError(f"{folder} holds quantised weights already; they cannot be quantised again.")
        return load_quantised(folder, data, compute_dtype)
    checkpoint = Checkpoint(folder)
    with torch.device("meta"):
        decoder = Decoder(checkpoint.config, compute_dtype)
    for name, part in checkpoint.parameters():
        path, _, attribute = name.rpartition(".")
        module = decoder.get_submodule(path)
        # A copy in memory of its own: the mapped file is let go.
        setattr(module, attribute, nn.Parameter(torch.empty(part.shape, dtype=dtype or part.dtype).copy_(part)))
        whole = not any(parameter.is_meta for parameter in module.parameters())
        if replace is not None and whole and isinstance(module, Linear | Embedding):
            parent, _, child = path.rpartition(".")
            setattr(decoder.get_submodule(parent), child, replace(path, module))
    return decoder
