"""How a checkpoint's tensors hold the decoder's parameters: renamed, transposed or several in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder

Split = Callable[[Tensor], Sequence[Tensor]]
Join = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Stored:
    """The checkpoint's tensor `name` holds these `parameters` of the decoder.

    `split` takes it apart into them, `join` is the reverse; both only move numbers, so that reading and writing keep
    every bit. `join` works on meta tensors too: the shape that the checkpoint's tensor must have follows from it.
    """

    name: str
    parameters: tuple[str, ...]
    split: Split = lambda tensor: (tensor,)
    join: Join = lambda tensors: tensors[0]


@lru_cache(maxsize=8)
def parameter_names(config: DecoderConfig) -> tuple[str, ...]:
    """The names of a decoder's parameters, in order."""
    with torch.device("meta"):
        return tuple(name for name, _ in Decoder(config).named_parameters())


def renamed(config: DecoderConfig, parts: Mapping[str, str]) -> dict[str, str]:
    """Each parameter's name in the checkpoint, after replacing whole parts of its dotted name; the first match wins.

    `parts` maps for example `"attn_norm"` to `"input_layernorm"`; a part may span dots, and so may what replaces it.
    """
    found = {}
    for name in parameter_names(config):
        dotted = f".{name}."
        for ours, theirs in parts.items():
            dotted = dotted.replace(f".{ours}.", f".{theirs}.", 1)
        found[name] = dotted.strip(".")
    return found


def plain(names: Mapping[str, str]) -> list[Stored]:
    """One tensor a parameter, of the same layout."""
    return [Stored(theirs, (ours,)) for ours, theirs in names.items()]


def transposed(name: str, parameter: str) -> Stored:
    """A matrix stored as `(inputs, outputs)`."""
    return Stored(name, (parameter,), lambda tensor: (tensor.T,), lambda tensors: tensors[0].T)


def rows(name: str, parameters: Sequence[str], sizes: Sequence[int], turned: bool = False) -> Stored:
    """Matrices (or biases) one below the other in one tensor, of `sizes` rows each; `turned`: stored transposed."""

    def split(tensor: Tensor) -> Sequence[Tensor]:
        return torch.split(tensor.T if turned else tensor, list(sizes))

    def join(tensors: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(tensors))
        return whole.T if turned else whole

    return Stored(name, tuple(parameters), split, join)


def interleaved(name: str, parameters: Sequence[str], heads: int) -> Stored:
    """Matrices (or biases) whose heads take turns: the first head of each, then the second of each (GPT-NeoX)."""
    count = len(parameters)

    def split(tensor: Tensor) -> Sequence[Tensor]:
        return [part.flatten(0, 1) for part in _heads(tensor, heads, count).unbind(1)]

    def join(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([_heads(tensor, heads) for tensor in tensors], dim=1).flatten(0, 2)

    return Stored(name, tuple(parameters), split, join)


def _heads(tensor: Tensor, *counts: int) -> Tensor:
    """`(rows, ...)` to `(*counts, rows left, ...)`."""
    return tensor.reshape(*counts, -1, *tensor.shape[1:])
