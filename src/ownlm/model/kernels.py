"""Which kernels a run uses: precision, attention and compilation, decided once by measuring and kept in the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from ownlm.model.attention import Attention
from ownlm.model.cross_entropy import SoftmaxGradient, softmax_gradient
from ownlm.model.decoder import Block, BlockFunction, Decoder

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Kernels:
    """`tiled` attention suits training on CPUs; `compiled` fuses each block's operations (needs a C++ compiler).

    `recompute`: activations are worked out again in the backward pass instead of kept (see `Decoder`).
    """

    precision: Precision = "float32"
    attention: Literal["tiled", "sdpa"] = "sdpa"
    compiled: bool = False
    recompute: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The precision of matmuls and activations."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def use(decoder: Decoder, kernels: Kernels) -> Decoder:
    """Sets the kernels of `decoder` and returns it. All blocks share one compiled function: it is compiled once."""
    decoder.compute_dtype = kernels.dtype
    for module in decoder.modules():
        if isinstance(module, Attention):
            module.tiled = kernels.attention == "tiled"
    decoder.recompute = kernels.recompute
    decoder.run_block = compiled_block() if kernels.compiled else Block.__call__
    decoder.softmax_gradient = compiled_softmax_gradient() if kernels.compiled else softmax_gradient
    return decoder


@contextmanager
def eager(decoder: Decoder) -> Iterator[None]:
    """For inputs of many shapes: inside the block nothing compiled runs, so that nothing is compiled anew."""
    compiled = decoder.run_block, decoder.softmax_gradient
    decoder.run_block, decoder.softmax_gradient = Block.__call__, softmax_gradient
    try:
        yield
    finally:
        decoder.run_block, decoder.softmax_gradient = compiled


@cache
def compiled_block() -> BlockFunction:
    """One function for all blocks of all decoders; torch compiles it at its first call with a shape."""
    return torch.compile(Block.forward, dynamic=False, fullgraph=True)


@cache
def compiled_softmax_gradient() -> SoftmaxGradient:
    """The inside of the cross-entropy as one loop."""
    return torch.compile(softmax_gradient, dynamic=False, fullgraph=True)
