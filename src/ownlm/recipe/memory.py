"""What training takes of the memory, forecast from the shapes alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ownlm.model.config import DecoderConfig
from ownlm.model.cross_entropy import CHUNK
from ownlm.model.kernels import Kernels

FREE_SHARE = 0.85
"""Of the memory there is; the rest is for the program itself, for what the allocator leaves unused, and for others."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each device. `weights` hold the fp32 master copy and the copies that the matmuls read."""

    weights: int
    gradients: int
    optimiser: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.activations

    def fits(self, available: float) -> bool:
        """Whether it leaves the others some."""
        return self.total <= FREE_SHARE * available


def training_memory(config: DecoderConfig, kernels: Kernels, rows: int, shards: int = 1) -> Memory:
    """Of a step of `rows` windows of the config's context a device, the states shared by `shards` devices (FSDP).

    Muon keeps one fp32 number a weight of the blocks' matrices, AdamW two of all others (see `parameter_groups`).
    Activations are what autograd keeps for the backward pass, counted tensor by tensor from `Block`; with recomputation
    the blocks' inputs and one block. The loss holds the logits of a chunk only.
    """
    wide = 4 if kernels.precision == "float32" else 2
    matrices = config.layers * (config.attention_matrices + config.ffn_matrices(config.ffn))
    copies = 0 if kernels.precision == "float32" else wide * config.matmul_parameters
    tokens = rows * config.context
    block = tokens * _block_bytes(config, kernels, wide)
    inputs = tokens * config.width * wide
    kept = config.layers * inputs + block if kernels.recompute else config.layers * block
    logits = min(CHUNK, tokens) * config.vocabulary * (2 * wide + 12)
    ends = tokens * config.width * (8 + 3 * wide) + 2 * 4 * config.vocabulary * config.width
    return Memory(
        weights=(4 * config.parameters + copies) // shards,
        gradients=4 * config.parameters // shards,
        optimiser=(4 * matrices + 8 * (config.parameters - matrices)) // shards,
        activations=kept + logits + ends,
    )


def fit_memory(
    config: DecoderConfig, kernels: Kernels, rows: int, available: float, shards: int = 1
) -> tuple[Kernels, int, Memory] | None:
    """The kernels and the windows at a time, `rows` at most, that fit `available` bytes; None where nothing does.

    Activations are worked out again only where a single window does not fit otherwise.
    """
    for recompute in (False, True):
        chosen, fewer = dataclasses.replace(kernels, recompute=recompute), rows
        while fewer >= 1:
            memory = training_memory(config, chosen, fewer, shards)
            if memory.fits(available):
                return chosen, fewer, memory
            fewer //= 2
    return None


def _block_bytes(config: DecoderConfig, kernels: Kernels, wide: int) -> int:
    """Bytes a token that one block keeps for its backward pass."""
    width, ffn, time = config.width, config.ffn, config.context
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    if kernels.compiled:  # a fused block works the cheap parts out again, and keeps what the matmuls read
        norms, heads, feed = 2 * wide * width, 0, 3 * wide * ffn
    else:
        # Norms keep their input and that times its scale in fp32, and the matmuls their result.
        norms, heads = 2 * width * (8 + wide), 8 * (queries + keys)
        # Gate, activation and up in fp32, and the product.
        feed = (12 + wide) * ffn
    attention = 5 * queries * wide  # queries, keys and values of every head, and the result twice
    if kernels.attention == "tiled":
        attention += config.heads * wide * (time + 128) // 2
    return norms + heads + attention + feed
