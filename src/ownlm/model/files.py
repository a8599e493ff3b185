"""Model folders: written as Hugging Face users expect, read tensor by tensor from memory-mapped safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ownlm.data.tokenizer import END_OF_TEXT, END_OF_TURN, Tokenizer
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family, family_of
from ownlm.model.families.qwen3 import family as default_family
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

WEIGHTS = "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def save_model(folder: Path, decoder: Decoder, tokenizer: Tokenizer, family: Family = default_family) -> None:
    """Writes config, weights in fp32, tokenizer with chat template, and generation settings into `folder`."""
    tensors = {
        family.foreign_name(name): parameter.detach().float().contiguous()
        for name, parameter in decoder.named_parameters()
    }
    ends = {"eos_token_id": tokenizer.end_of_turn, "pad_token_id": tokenizer.end_of_text, "bos_token_id": None}
    atomic.write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    atomic.write_json(folder / "config.json", {**family.write_config(decoder.config), **ends})
    stops = [tokenizer.special[END_OF_TURN], tokenizer.special[END_OF_TEXT]]
    generation = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, **ends, "eos_token_id": stops}
    atomic.write_json(folder / "generation_config.json", generation)
    tokenizer.save(folder, decoder.config.context)


def read_config(folder: Path) -> tuple[DecoderConfig, Family]:
    """The decoder that a folder's `config.json` describes, and its family.

    Raises:
        OwnLMError: no such file, no JSON, or a config that is not understood.
    """
    path = folder / "config.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OwnLMError(f"{folder} is no model folder: it has no config.json.") from None
    except ValueError as error:
        raise OwnLMError(f"{path} is not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise OwnLMError(f"{path} is not a JSON object.")
    family = family_of(data, str(path))
    return family.read_config(data), family


def load_model(folder: Path, compute_dtype: torch.dtype = torch.float32) -> Decoder:
    """Builds the decoder of a model folder and fills it from its safetensors files.

    Raises:
        OwnLMError: pickles instead of safetensors, a file cut short, or tensors that are missing, unexpected (each
            named) or of another shape than the config says.
    """
    config, family = read_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config, compute_dtype)
    decoder.to_empty(device="cpu")
    expected = {family.foreign_name(name): parameter for name, parameter in decoder.named_parameters()}
    seen: set[str] = set()
    unexpected = []
    with torch.no_grad():
        for name, tensor in _tensors(folder):
            if name not in expected:
                unexpected.append(name)
                continue
            if tensor.shape != expected[name].shape:
                wanted = tuple(expected[name].shape)
                raise OwnLMError(f"{folder}: the tensor {name} has shape {tuple(tensor.shape)}, not {wanted}.")
            expected[name].copy_(tensor)
            seen.add(name)
    missing = sorted(set(expected) - seen)
    if missing or unexpected:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has unexpected {', '.join(sorted(unexpected))}"] * bool(unexpected)
        raise OwnLMError(f"The weights in {folder} do not fit its config: it {' and '.join(parts)}.")
    return decoder


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        reason = (
            f"only pickles ({', '.join(pickles)}), which can run code when they are opened; convert them to safetensors"
            if pickles
            else "no .safetensors file"
        )
        raise OwnLMError(f"{folder} has {reason}.")
    with ExitStack() as stack:
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise OwnLMError(f"{path} is no whole safetensors file ({error}).") from None
            for name in file.keys():  # noqa: SIM118  (a safetensors handle is no dictionary)
                yield name, file.get_tensor(name)
