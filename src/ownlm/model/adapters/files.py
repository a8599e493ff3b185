"""PEFT folders: `adapter_config.json` and `adapter_model.safetensors`, read and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ownlm.model.adapters.adapter import Adapter, update_target
from ownlm.model.adapters.config import (
    ALL_LINEAR,
    CONFIG,
    REMEDY,
    AdapterConfig,
    read_adapter_config,
    write_adapter_config,
)
from ownlm.model.adapters.layers import LowRank
from ownlm.model.adapters.packed_experts import pack, unpack
from ownlm.model.adapters.targets import Target, chosen, concise, rank_and_alpha, targets_of
from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family
from ownlm.model.folder import opened
from ownlm.model.layers import Embedding, Linear
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_BASE_WEIGHT = re.compile(r"^(.*)\.base_layer\.weight$")


@dataclass(frozen=True)
class Factors:
    """What an adapter's file holds of one target, as `LowRank` names it: `A`, `B`, magnitude and bias."""

    lora_A: Tensor
    lora_B: Tensor
    magnitude: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class StoredAdapter:
    """A PEFT folder: its config, and the factors of each target.

    `base_weights` are copies of the base's embedding and head, which PEFT writes beside adapters of those.
    """

    config: AdapterConfig
    factors: dict[str, Factors]
    targets: dict[str, Target]
    base_weights: dict[str, Tensor]
    packed: tuple[AdapterConfig, Experts] | None = None

    def updates(self, name: str) -> dict[str, LowRank]:
        """The updates of one target's modules."""
        found = self.factors[name]
        return update_target(
            self.config, self.targets[name], found.lora_A, found.lora_B, found.magnitude, found.bias
        )  # fmt: skip


def is_adapter_folder(folder: Path) -> bool:
    """Whether PEFT (or `save_adapter`) wrote it."""
    return (folder / CONFIG).is_file()


def read_adapter(folder: Path, decoder: Decoder, family: Family) -> Adapter:
    """The adapter of a PEFT folder, for a decoder whose checkpoints are those of `family`.

    Raises:
        OwnLMError: see `read_stored_adapter`; or it comes with another embedding or head than the decoder's.
    """
    stored = read_stored_adapter(folder, decoder.config, family)
    weights = {}
    for name, target in stored.targets.items():
        if name in stored.base_weights:
            path = "embed_tokens" if target.kind == "head" else target.modules[0]
            module: Any = decoder.get_submodule(path)
            module = getattr(module, "base", module)
            # A quantised base has other numbers than the one that the adapter was trained on.
            weights[name] = module.dense() if isinstance(module, Linear | Embedding) else stored.base_weights[name]
    check_base(folder, stored, weights)
    updates: dict[str, LowRank] = {}
    for name in stored.factors:
        updates |= stored.updates(name)
    return Adapter(stored.config, tuple(stored.targets[name] for name in stored.factors), updates, stored.packed)


def read_stored_adapter(folder: Path, config: DecoderConfig, family: Family) -> StoredAdapter:
    """What a PEFT folder holds, checked against the modules of the base.

    Raises:
        OwnLMError: a pickle, a config that asks for what is not computed here, a base of another architecture, or
            tensors that are missing, unexpected (each named) or of another shape than base and config say.
    """
    adapter, targets = read_adapter_config(folder), targets_of(config, family)
    tensors = _tensors(folder)
    base_weights = {found[1]: tensors.pop(name) for name in list(tensors) if (found := _BASE_WEIGHT.match(name))}
    packed = (adapter, config.experts) if adapter.target_parameters and config.experts else None
    if adapter.target_parameters:
        adapter, tensors = unpack(adapter, tensors, config, targets, str(folder))
    _check_architecture(folder, tensors, targets, family)
    names = [target.name for target in chosen(adapter, targets)]
    expected = {key: (name, field) for name in names for key, field in _keys(targets[name], adapter).items()}
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unexpected {', '.join(extra)}"] * bool(extra)
        raise OwnLMError(f"The tensors in {folder / WEIGHTS} do not fit its config: it {' and '.join(parts)}.")
    fields: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, (name, field) in expected.items():
        _check_shape(folder, key, field, tensors[key], targets[name], rank_and_alpha(adapter, name)[0])
        fields[name][field] = tensors[key]
    return StoredAdapter(
        adapter, {name: Factors(**each) for name, each in fields.items()}, targets, base_weights, packed
    )


def save_adapter(folder: Path, adapter: Adapter) -> None:
    """Writes a folder that PEFT opens: the adapter's tensors in their own precision, named after the checkpoint's."""
    config, every = adapter.config, {target.name: target for target in adapter.targets}
    if config.target_modules == ALL_LINEAR:
        linear = {name for name, target in every.items() if target.kind == "linear"}
        config = replace(config, target_modules=concise(linear, every))
    tensors: dict[str, Tensor] = {}
    for target in adapter.targets:
        updates = [adapter.updates[path] for path in target.modules]
        for key, field in _keys(target, config).items():
            parts = [getattr(update, field).detach() for update in updates]
            if field == "lora_A":
                tensors[key] = parts[0]
            else:
                whole = target.join([part.reshape(len(part), -1) for part in parts])
                tensors[key] = whole.reshape(-1, *parts[0].shape[1:])
    if adapter.packed is not None and (
        together := pack(adapter.packed[0], tensors, adapter.packed[1], adapter.targets)
    ):
        config, tensors = adapter.packed[0], together
    stored = {f"{PREFIX}{key}": tensor.contiguous() for key, tensor in tensors.items()}
    atomic.write_bytes(folder / WEIGHTS, save(stored, {"format": "pt"}))
    write_adapter_config(folder, config, fan_in_fan_out=any(target.turned for target in adapter.targets))


def _keys(target: Target, config: AdapterConfig) -> dict[str, str]:
    """The names of a target's tensors in the file, without PEFT's prefix, and the fields of `Factors` they are."""
    embedding = target.kind == "embedding"
    found = {
        f"{target.name}.lora_embedding_A" if embedding else f"{target.name}.lora_A.weight": "lora_A",
        f"{target.name}.lora_embedding_B" if embedding else f"{target.name}.lora_B.weight": "lora_B",
    }
    if config.dora:
        found[f"{target.name}.lora_magnitude_vector"] = "magnitude"
    if config.lora_bias and not embedding:
        found[f"{target.name}.lora_B.bias"] = "bias"
    return found


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The file's tensors, without PEFT's prefix."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise OwnLMError(
                f"{folder} has its weights as a pickle (adapter_model.bin), which can run code when it is opened: load "
                "it with PEFT where you trust it, and save it again with save_pretrained, which writes safetensors."
            )
        raise OwnLMError(f"{folder} has no {WEIGHTS}.")
    with opened(path) as file:
        tensors = {name.removeprefix(PREFIX): file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise OwnLMError(f"{path}: the tensor {name} is stored as {tensor.dtype}, which is not read here.")
    return tensors


def _check_architecture(folder: Path, tensors: Mapping[str, Any], targets: dict[str, Target], family: Family) -> None:
    owners = {name.rsplit(".lora_", 1)[0] for name in tensors}
    if owners and not owners & set(targets):
        raise OwnLMError(
            f"The adapter in {folder} is for another architecture: it acts on {min(owners)}, which a "
            f"{family.model_type} model does not have (it has {next(iter(targets))}, for example). Give the base that "
            "it was trained on."
        )


def _check_shape(folder: Path, key: str, field: str, tensor: Tensor, target: Target, rank: int) -> None:
    rows = sum(target.outputs)
    wanted = {"lora_A": (rank, target.inputs), "lora_B": (rows, rank)}.get(field, (rows,))
    if tuple(tensor.shape) == wanted:
        return
    place = {"lora_A": 0, "lora_B": 1}.get(field)
    if place is not None and tensor.ndim == 2 and tensor.shape[1 - place] == wanted[1 - place]:
        raise OwnLMError(
            f"{folder / WEIGHTS}: the tensor {key} is of rank {tensor.shape[place]}, but {CONFIG} says {rank} there "
            "(r, or rank_pattern)."
        )
    raise OwnLMError(
        f"{folder / WEIGHTS}: the tensor {key} has shape {tuple(tensor.shape)}, not {wanted}: it was made for a model "
        "of another size."
    )


def check_base(folder: Path, stored: StoredAdapter, weights: Mapping[str, Tensor]) -> None:
    """Raises `OwnLMError` where the adapter's copies of base weights are not `weights`, by the checkpoint's modules."""
    for name, copy in stored.base_weights.items():
        own = weights.get(name)
        if own is None or own.shape != copy.shape or not torch.equal(copy.to(own.dtype), own):
            raise OwnLMError(
                f"{folder / WEIGHTS} comes with a {name}.base_layer.weight of its own, which is not the base's; "
                f"{REMEDY}."
            )
