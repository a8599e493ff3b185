"""Quantised weights on disk, in the format that compressed-tensors calls "pack-quantized", for int8 and int4 alike.

A matrix `NAME.weight` becomes `NAME.weight_packed` (int32 `(outputs, inputs * bits / 32)`: unsigned codes, the first in
the lowest bits), `NAME.weight_scale` `(outputs, groups)` and `NAME.weight_shape`; `quantization_config` in
`config.json` says which modules have what. The layout of this machine's kernels is never written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.decoder import Decoder
from ownlm.model.families import Stored, family_of
from ownlm.model.folder import PRECISIONS, opened, weight_files
from ownlm.model.layers import Embedding, Linear
from ownlm.model.quantised.config import FORMAT, METHOD, check, weights_entry
from ownlm.model.quantised.int8 import SCALE_DTYPE
from ownlm.model.quantised.layers import QuantisedEmbedding, QuantisedLinear, QuantisedWeight, from_rows
from ownlm.model.quantised.scheme import GROUPS, Scheme
from ownlm.runtime.errors import OwnLMError

PARTS = ("packed", "scale", "shape")
MAPPED_BYTES = 64 << 20
MATRICES = (Linear, Embedding, QuantisedWeight)


def quantised_tensors(stored: Stored, decoder: nn.Module) -> dict[str, Tensor] | None:
    """What is written in place of the checkpoint's tensor `stored`; None where it is not quantised.

    Matrices that a family keeps in one tensor are quantised by row, so they are joined as their weights would be.
    """
    owners = [_owner(decoder, name) for name in stored.parameters]
    matrices = [owner for owner in owners if isinstance(owner, QuantisedWeight)]
    if len(matrices) != len(owners) or not stored.name.endswith(".weight"):
        return None
    rows, bits = [matrix.rows() for matrix in matrices], matrices[0].scheme.bits
    shape = [sum(matrix.outputs for matrix in matrices), matrices[0].inputs]
    return {
        f"{stored.name}_packed": stored.join([_to_int32(codes, bits) for codes, _ in rows]).contiguous(),
        f"{stored.name}_scale": _exactly(stored.join([scales for _, scales in rows]), matrices[0].dtype).contiguous(),
        f"{stored.name}_shape": torch.tensor(shape),
    }


def quantization_config(decoder: nn.Module, tensors: list[Stored], tied: bool) -> dict[str, Any] | None:
    """The key `quantization_config` of `config.json` for a checkpoint of these `tensors`; None: nothing is quantised.

    The commonest scheme is that of all linear layers and embeddings; the modules of others, and those that are not
    quantised, are named one by one. `tied`: the head is the embedding's.
    """
    of: dict[str, Scheme | None] = {"lm_head": None} if tied else {}
    for stored in tensors:
        owner = _owner(decoder, stored.parameters[0])
        if isinstance(owner, MATRICES) and stored.name.endswith(".weight"):
            of[stored.name.removesuffix(".weight")] = owner.scheme if isinstance(owner, QuantisedWeight) else None
    schemes = [scheme for scheme in of.values() if scheme is not None]
    if not schemes:
        return None
    ordered = sorted(set(schemes), key=lambda scheme: -schemes.count(scheme))
    groups = {
        f"group_{index}": {
            "targets": [name for name, scheme in of.items() if scheme == each] if index else ["Linear", "Embedding"],
            "weights": weights_entry(each), "input_activations": None, "output_activations": None, "format": FORMAT,
        }
        for index, each in enumerate(ordered)
    }  # fmt: skip
    return {
        "quant_method": METHOD, "format": FORMAT, "quantization_status": "compressed", "config_groups": groups,
        "ignore": [name for name, scheme in of.items() if scheme is None], "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }  # fmt: skip


def _exactly(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """In that precision where it holds them without rounding, else as they are.

    Others multiply codes by scales in the precision of the scales, so a wider one loses nothing of the products.
    """
    found = scales.to(dtype)
    return found if torch.equal(found.to(scales.dtype), scales) else scales


def _owner(decoder: nn.Module, parameter: str) -> nn.Module:
    return decoder.get_submodule(parameter.rpartition(".")[0])


def _to_int32(codes: Tensor, bits: Literal[4, 8]) -> Tensor:
    """Codes `(outputs, inputs)` in int8 as int32, rows filled up with zeros to whole numbers."""
    unsigned = (codes.to(torch.int16) + (1 << (bits - 1))).to(torch.uint8)
    filled = functional.pad(unsigned, (0, -codes.shape[1] % (32 // bits)))
    if bits == 4:
        filled = filled[:, ::2] | filled[:, 1::2] << 4
    return filled.contiguous().view(torch.int32)


def _from_int32(packed: Tensor, bits: Literal[4, 8], inputs: int) -> Tensor:
    """The reverse of `_to_int32`."""
    unsigned = packed.contiguous().view(torch.uint8)
    if bits == 4:
        unsigned = torch.stack((unsigned & 15, unsigned >> 4), dim=-1).flatten(1)
        return unsigned[:, :inputs].to(torch.int8) - 8
    return (unsigned[:, :inputs] ^ 128).view(torch.int8)


def _read(packed: Tensor, bits: Literal[4, 8], inputs: int, start: int, end: int) -> Tensor:
    return _from_int32(packed[start:end], bits, inputs)


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies, and what the file's header says of it."""

    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str


def load_quantised(folder: Path, data: dict[str, Any], compute_dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder of a model folder whose `config.json`, `data`, has a `quantization_config`.

    Raises:
        OwnLMError: that is not understood; tensors are missing, unexpected or there twice (each named), or of other
            shapes than the config says; as `weight_files`; or a config that its family does not understand.
    """
    check(data["quantization_config"], f"{folder / 'config.json'}")
    plain = {key: value for key, value in data.items() if key != "quantization_config"}
    family = family_of(plain, f"{folder / 'config.json'}")
    config = family.read_config(plain)
    with torch.device("meta"):
        decoder = Decoder(config, compute_dtype)
    kind = str(data.get("torch_dtype", data.get("dtype", ""))).removeprefix("torch.")
    dtype = next((each for each, name in PRECISIONS.items() if name == kind), torch.float32)
    tensors = family.tensors(config)
    places = _places(folder, tensors)
    for group in _groups(tensors, places):
        paths = {places[name].path for stored in group for name in _names(stored, places)}
        with ExitStack() as stack:
            files = {path: stack.enter_context(opened(path)) for path in paths}
            for stored in group:
                found = {name: files[places[name].path].get_tensor(places[name].key) for name in _names(stored, places)}
                _fill(decoder, stored, found, dtype, str(folder))
    return decoder


def _names(stored: Stored, places: dict[str, _Place]) -> list[str]:
    """The tensors that hold this one: itself, or its three parts."""
    return [stored.name] if stored.name in places else [f"{stored.name}_{part}" for part in PARTS]


def _places(folder: Path, tensors: list[Stored]) -> dict[str, _Place]:
    """Where each tensor lies, from the files' headers; a file may leave the base model's prefix out."""
    known = {stored.name for stored in tensors}
    known |= {f"{stored.name}_{part}" for stored in tensors for part in PARTS}
    prefixes = sorted({name.split(".")[0] for name in known})
    places: dict[str, _Place] = {}
    unexpected = []
    for path in weight_files(folder):
        with opened(path) as file:
            for key in file.offset_keys():
                candidates = (key, *(f"{prefix}.{key}" for prefix in prefixes))
                name = next((each for each in candidates if each in known), None)
                if name is None:
                    unexpected.append(key)
                elif name in places:
                    raise OwnLMError(f"{folder}: the tensor {key} is there twice.")
                else:
                    part: Any = file.get_slice(key)
                    places[name] = _Place(path, key, tuple(part.get_shape()), part.get_dtype())
    wanted = {name for stored in tensors for name in _names(stored, places)}
    missing, unexpected = sorted(wanted - places.keys()), sorted([*unexpected, *(places.keys() - wanted)])
    if missing or unexpected:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has unexpected {', '.join(unexpected)}"] * bool(unexpected)
        raise OwnLMError(f"The weights in {folder} do not fit its config: it {' and '.join(parts)}.")
    return places


def _groups(tensors: list[Stored], places: dict[str, _Place]) -> Iterator[list[Stored]]:
    """Of at most `MAPPED_BYTES` together, or a larger one alone: what was read is mapped until its file is closed."""
    group: list[Stored] = []
    size = 0
    for stored in tensors:
        bytes_ = sum(4 * math.prod(places[name].shape) for name in _names(stored, places))
        if group and size + bytes_ > MAPPED_BYTES:
            yield group
            group, size = [], 0
        group.append(stored)
        size += bytes_
    if group:
        yield group


def _fill(decoder: Decoder, stored: Stored, found: dict[str, Tensor], dtype: torch.dtype, where: str) -> None:
    """Puts what the file has for one tensor of the checkpoint into the decoder."""
    owners = [_owner(decoder, name) for name in stored.parameters]
    if stored.name in found:
        tensor = found[stored.name]
        wanted = stored.join([decoder.get_parameter(name) for name in stored.parameters]).shape
        if tensor.shape != wanted or tensor.dtype not in PRECISIONS:
            raise OwnLMError(
                f"{where}: the tensor {stored.name} is {tensor.dtype} {tuple(tensor.shape)}; it must be "
                f"floating-point numbers {tuple(wanted)}."
            )
        for name, owner, part in zip(stored.parameters, owners, stored.split(tensor), strict=True):
            setattr(owner, name.rpartition(".")[2], nn.Parameter(part.clone()))
        return
    packed, scales = (found[f"{stored.name}_{part}"] for part in ("packed", "scale"))
    if packed.ndim == scales.ndim == 2:
        for name, owner, rows, factors in zip(
            stored.parameters, owners, stored.split(packed), stored.split(scales), strict=True
        ):
            path = name.rpartition(".")[0]
            scheme = _scheme_of(owner, rows, factors) if isinstance(owner, Linear | Embedding) else None
            if scheme is None or not isinstance(owner, Linear | Embedding):
                break
            read = partial(_read, rows, scheme.bits, owner.inputs)
            codes, kept = from_rows(read, owner.inputs, _exactly(factors, SCALE_DTYPE).contiguous().clone(), scheme)
            parent, _, child = path.rpartition(".")
            setattr(decoder.get_submodule(parent), child, _made(owner, codes, kept, scheme, dtype))
        else:
            return
    raise OwnLMError(
        f"{where}: {stored.name}_packed {tuple(packed.shape)} and {stored.name}_scale {tuple(scales.shape)} are no "
        f"int8 by channel or int4 by groups of {', '.join(map(str, GROUPS))} of the matrix that the config has there."
    )


def _scheme_of(module: Linear | Embedding, packed: Tensor, scales: Tensor) -> Scheme | None:
    """What the shapes of the parts say; None: nothing that fits the module."""
    inputs = module.inputs
    if len(packed) == len(scales) == module.outputs and packed.dtype is torch.int32 and scales.is_floating_point():
        if packed.shape[1] == -(-inputs // 4) and scales.shape[1] == 1:
            return Scheme(8)
        for group in GROUPS:
            if packed.shape[1] * 8 == inputs == scales.shape[1] * group:
                return Scheme(4, group)
    return None


def _made(
    module: Linear | Embedding, codes: Tensor, scales: Tensor, scheme: Scheme, dtype: torch.dtype
) -> QuantisedWeight:
    if isinstance(module, Embedding):
        return QuantisedEmbedding(codes, scales, module.outputs, scheme, dtype)
    return QuantisedLinear(codes, scales, module.outputs, scheme, dtype, module.bias)
