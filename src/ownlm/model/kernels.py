"""Which kernels a run uses: precision, attention and compilation, decided once by measuring and kept in the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ownlm.model.attention import Attention
from ownlm.model.decoder import Block, Decoder

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Kernels:
    """`tiled` attention suits training on CPUs; `compiled` fuses each block's operations (needs a C++ compiler)."""

    precision: Precision = "float32"
    attention: Literal["tiled", "sdpa"] = "sdpa"
    compiled: bool = False

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
    decoder.run_block = (
        torch.compile(Block.forward, dynamic=False, fullgraph=True) if kernels.compiled else Block.__call__
    )
    return decoder
