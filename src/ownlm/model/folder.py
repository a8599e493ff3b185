"""A model folder: its config, and which of its files belong to the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ownlm.model.config import DecoderConfig
from ownlm.model.families import Family, family_of
from ownlm.model.quantised.config import check
from ownlm.runtime.errors import OwnLMError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The precisions that are read, by their names in safetensors files."""
PRECISIONS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""Their names in a `config.json`."""

_NAMES = frozenset({
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "README.md",
})  # fmt: skip
_PATTERNS = re.compile(r"(licen[cs]e|copying|notice|use_policy)([-._].*)?|additional_chat_templates/[^/]+\.jinja", re.I)


def config_data(folder: Path) -> dict[str, Any]:
    """What a folder's `config.json` holds.

    Raises:
        OwnLMError: no such file, or no JSON object in it.
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
    return data


def read_config(folder: Path) -> tuple[DecoderConfig, Family]:
    """The decoder that a folder's `config.json` describes, and its family.

    Raises:
        OwnLMError: no such file, no JSON, or a config that is not understood.
    """
    data, where = config_data(folder), str(folder / "config.json")
    quantised = data.pop("quantization_config", None)  # how the weights are stored, not what is computed
    if quantised is not None:
        check(quantised, where)
    family = family_of(data, where)
    return family.read_config(data), family


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model: those of the index, or the one of the usual name, or all.

    Raises:
        OwnLMError: there is none (only pickles, say), or the index names one that is missing.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OwnLMError(f"{index} is no index of safetensors files ({error!r}).") from None
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise OwnLMError(f"{index} names {name}, which is not in {folder}.")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    paths = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter"))
    if not paths:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        reason = (
            f"only pickles ({', '.join(pickles)}), which can run code when they are opened; convert them to safetensors"
            if pickles
            else "no .safetensors file"
        )
        raise OwnLMError(f"{folder} has {reason}.")
    return paths


def opened(path: Path) -> Any:
    """A safetensors file.

    Raises:
        OwnLMError: it is cut short, its tensors overlap, or it is something else.
    """
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise OwnLMError(f"{path} is no whole safetensors file ({error}).") from None


def is_model_file(name: str) -> bool:
    """Whether a file of this path inside a folder is part of a model, its weights apart."""
    return name in _NAMES or _PATTERNS.fullmatch(name) is not None


def model_files(folder: Path) -> list[Path]:
    """Config, weights, tokenizer, chat templates, licence and card of a model folder, and nothing else that lies there.

    Raises:
        OwnLMError: there are no weights that can be read, only pickles, say; see `weight_files`.
    """
    weights = weight_files(folder)
    index = folder / INDEX
    if index.is_file() and {path.name for path in weights} != {"model.safetensors"}:
        weights.append(index)
    inside = [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]
    beside = [path for path in inside if path.is_file() and is_model_file(path.relative_to(folder).as_posix())]
    return sorted(beside) + weights
