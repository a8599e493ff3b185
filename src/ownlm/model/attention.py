"""Causal self-attention with grouped queries, rotary positions and normalised queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.cache import Cache
from ownlm.model.config import DecoderConfig
from ownlm.model.layers import Linear, RMSNorm
from ownlm.model.rope import rotate
from ownlm.model.tiled_attention import tiled_attention

RopeTables = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Softmax attention; `forward` takes and gives `(batch, time, width)`."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.tiled = False
        self.scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        if config.scale_by_layer:
            self.scale /= layer + 1
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = Linear(config.width, queries, config.qkv_bias)
        self.k_proj = Linear(config.width, keys, config.qkv_bias)
        self.v_proj = Linear(config.width, keys, config.qkv_bias)
        self.o_proj = Linear(queries, config.width, config.output_bias)
        sizes = {"head": (config.head_dim, config.head_dim), "full": (queries, keys)}
        if config.qk_norm is None:
            self.q_norm: nn.Module = nn.Identity()
            self.k_norm: nn.Module = nn.Identity()
        else:
            self.q_norm, self.k_norm = (
                RMSNorm(size, config.norm_eps, config.norm_offset) for size in sizes[config.qk_norm]
            )

    def forward(
        self,
        x: Tensor,
        rope: RopeTables | None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """`mask`: None for causal, else boolean `(batch, 1, time, keys)`, true where a key may be seen.

        `first` `(batch or 1, time)`, without cache and mask only: the first position that each one may see.
        """
        batch, time, _ = x.shape
        q, k = self._heads(self.q_proj(x), self.q_norm), self._heads(self.k_proj(x), self.k_norm)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        v = self.v_proj(x).view(batch, time, -1, self.config.head_dim).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        if self.tiled and cache is None and mask is None and self.config.attention_softcap is None:
            out = tiled_attention(q, k, v, self.scale, first)
        else:
            out = self._attend(q, k, v, mask if first is None else _visible(first))
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor, norm: nn.Module) -> Tensor:
        """`(batch, time, heads * head_dim)` to normalised `(batch, time, heads, head_dim)`."""
        if self.config.qk_norm == "full":
            x = norm(x)
        x = x.view(*x.shape[:2], -1, self.config.head_dim)
        return norm(x) if self.config.qk_norm == "head" else x

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """`q` `(batch, heads, time, head_dim)`; `k` and `v` with `kv_heads` and all positions so far."""
        config = self.config
        if config.attention_softcap is not None:
            return _softcapped(q, k, v, mask, self.scale, config.attention_softcap)
        if q.shape[2] == 1:
            # The heads of a group as so many queries: in bf16 on CPUs many times faster than torch's own grouping.
            queries = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
            out = functional.scaled_dot_product_attention(queries, k, v, attn_mask=mask, scale=self.scale)
            return out.view(q.shape)
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale,
            enable_gqa=config.heads != config.kv_heads,
        )  # fmt: skip


def _visible(first: Tensor) -> Tensor:
    """The causal mask `(batch or 1, 1, time, time)` of those who see nothing before `first` `(batch or 1, time)`."""
    keys = torch.arange(first.shape[1], device=first.device)
    return ((keys >= first[..., None]) & (keys <= keys[:, None]))[:, None]


def _softcapped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, cap: float) -> Tensor:
    """Attention over scores `cap * tanh(score / cap)` (Gemma 2, arXiv 2408.00118); scores and softmax in fp32."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = cap * torch.tanh((q @ k.transpose(-1, -2)).float() * (scale / cap))
    if mask is None and q.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(v.dtype) @ v
