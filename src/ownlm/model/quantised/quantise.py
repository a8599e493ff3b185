"""Quantising a decoder, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from ownlm.model.layers import Embedding, Linear
from ownlm.model.quantised import int4, int8
from ownlm.model.quantised.layers import QuantisedEmbedding, QuantisedLinear, QuantisedWeight
from ownlm.model.quantised.scheme import Scheme
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.memory import give_back

KEPT = ("router", "embed_positions")
"""Small matrices that stay as they are: a router's choices are close calls, and learnt positions are only looked up."""

LARGE = 1 << 20
"""Weights from which freed memory is given back at once: what loading leaves behind is more than quantising saves."""


def quantised(name: str) -> bool:
    """Whether the matrix of this name is one that is quantised."""
    return name.rpartition(".")[2] not in KEPT


@torch.no_grad()
def quantise_module(name: str, module: nn.Module, scheme: Scheme) -> nn.Module:
    """A quantised module in place of a `Linear` or an `Embedding`; others, a router too, come back as they are.

    With `functools.partial(quantise_module, scheme=...)` it is what `load_model(..., replace=...)` takes.

    Raises:
        OwnLMError: the weight has numbers that are not finite, or it is on a GPU without torchao.
    """
    if not isinstance(module, Linear | Embedding) or not quantised(name):
        return module
    weight, fitting = module.weight.detach(), scheme.fitting(module.inputs)
    if weight.is_cuda and isinstance(module, Linear):
        from ownlm.model.quantised.cuda import TorchaoLinear

        return TorchaoLinear(module, fitting)
    codes, scales = int8.quantise(weight) if fitting.group is None else int4.quantise(weight, fitting.group)
    if not bool(scales.isfinite().all()):
        raise OwnLMError(f"{name} cannot be quantised: its weight has numbers that are not finite.")
    if weight.numel() >= LARGE:
        give_back()
    if isinstance(module, Embedding):
        return QuantisedEmbedding(codes, scales, module.outputs, fitting, weight.dtype)
    return QuantisedLinear(codes, scales, module.outputs, fitting, weight.dtype, module.bias)


def quantise(decoder: nn.Module, scheme: Scheme) -> None:
    """Quantises a decoder's matrices in place, one after the other: both forms of only one exist at a time.

    Raises:
        OwnLMError: as `quantise_module`.
    """
    for name in [name for name, module in decoder.named_modules() if isinstance(module, Linear | Embedding)]:
        parent, _, child = name.rpartition(".")
        owner = decoder.get_submodule(parent)
        setattr(owner, child, quantise_module(name, getattr(owner, child), scheme))


def schemes_of(decoder: nn.Module) -> dict[str, Scheme]:
    """The scheme of each quantised matrix, by its name."""
    return {name: module.scheme for name, module in decoder.named_modules() if isinstance(module, QuantisedWeight)}


def describe(decoder: nn.Module, scheme: Scheme) -> str:
    """A sentence about what was quantised, with the matrices that `scheme` did not fit."""
    found = schemes_of(decoder)
    counts = Counter(map(str, found.values()))
    parts = [f"{count} matrices to {name}" for name, count in counts.most_common()]
    sentence = f"Quantised {' and '.join(parts) if parts else 'nothing'}."
    if counts.keys() - {str(scheme)}:
        sentence += f" Where groups of {scheme.group} do not divide the inputs, the next smaller one or int8 serves."
    return sentence


def set_packed_rows(decoder: nn.Module, rows: Mapping[int, int]) -> None:
    """Up to how many rows the packed kernels work, by bits; as `measure_crossover` found it."""
    for module in decoder.modules():
        if isinstance(module, QuantisedWeight) and module.scheme.bits in rows:
            module.packed_rows = rows[module.scheme.bits]
