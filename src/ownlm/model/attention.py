"""Causal self-attention with grouped queries, rotary positions and normalised queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.cache import Cache
from ownlm.model.config import DecoderConfig
from ownlm.model.layers import Linear, RMSNorm
from ownlm.model.tiled_attention import tiled_attention


def rope_frequencies(config: DecoderConfig, device: torch.device | None = None) -> Tensor:
    """How far each rotary plane turns from one position to the next, in radians, fastest first: `(head_dim / 2,)`."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    return 1.0 / config.rope_theta**exponents


def rope_tables(config: DecoderConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles (Su et al. 2021), in fp32.

    `positions`: `(time,)` or `(batch, time)`. Returns two tensors `(..., time, head_dim)`: angle i and i + head_dim/2
    are the same, the "rotate half" layout of the Hugging Face checkpoints.
    """
    angles = positions.float().unsqueeze(-1) * rope_frequencies(config, positions.device)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns `x` `(batch, time, heads, head_dim)` by the angles `(time, head_dim)` or `(batch, time, head_dim)`."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Softmax attention; `forward` takes and gives `(batch, time, width)`."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.tiled = False
        self.q_proj = Linear(config.width, config.heads * config.head_dim)
        self.k_proj = Linear(config.width, config.kv_heads * config.head_dim)
        self.v_proj = Linear(config.width, config.kv_heads * config.head_dim)
        self.o_proj = Linear(config.heads * config.head_dim, config.width)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """`mask`: None for plain causal, else boolean `(batch, 1, time, keys)`, true where a key may be seen."""
        batch, time, _ = x.shape
        head_dim = self.config.head_dim
        q = rotate(self.q_norm(self.q_proj(x).view(batch, time, -1, head_dim)), *rope).transpose(1, 2)
        k = rotate(self.k_norm(self.k_proj(x).view(batch, time, -1, head_dim)), *rope).transpose(1, 2)
        v = self.v_proj(x).view(batch, time, -1, head_dim).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        if self.tiled and cache is None and mask is None:
            out = tiled_attention(q, k, v)
            return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]
        grouped = self.config.heads != self.config.kv_heads
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and time > 1, enable_gqa=grouped
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]
