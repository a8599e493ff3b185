"""The decoder: embeddings, a stack of blocks, a final norm and a head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.attention import Attention, rope_tables
from ownlm.model.cache import Cache
from ownlm.model.config import DecoderConfig
from ownlm.model.cross_entropy import SoftmaxGradient, softmax_gradient
from ownlm.model.induction import can_hold_induction, write_induction
from ownlm.model.layers import FeedForward, RMSNorm

BlockFunction = Callable[..., Tensor]

EMBEDDING_DEVIATION = 0.05
"""Larger than the usual 0.02: the first steps must not drown what the induction circuit reads."""


class Block(nn.Module):
    """One layer: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config.width, config.ffn)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """`(batch, time, width)` to the same."""
        x = x + self.self_attn(self.input_layernorm(x), rope, cache, mask)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A decoder-only Transformer described by one `DecoderConfig`.

    The master weights keep their own precision; activations flow in `compute_dtype`. Norms, rotary positions, softmax
    and everything after the logits are fp32. `run_block` runs a block on plain causal input; `kernels.use` may put a
    compiled function there.
    """

    def __init__(self, config: DecoderConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if config.tied_embeddings else nn.Parameter(torch.empty(config.vocabulary, config.width))
        self.run_block: BlockFunction = Block.__call__
        self.softmax_gradient: SoftmaxGradient = softmax_gradient

    @property
    def head(self) -> Tensor:
        """The head's matrix `(vocabulary, width)`: its own, or the embedding's."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head

    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The last layer's normalised output `(batch, time, width)` for tokens `(batch, time)`.

        `positions` `(time,)` or `(batch, time)` default to those that follow the cache. `mask` as in `Attention`.
        With a cache and several new tokens a mask is made here, since keys then outnumber queries.
        """
        time = ids.shape[1]
        past = 0 if cache is None else cache.length
        if positions is None:
            positions = torch.arange(past, past + time, device=ids.device)
        if mask is None and past and time > 1:
            keys = torch.arange(past + time, device=ids.device)
            mask = (keys <= torch.arange(past, past + time, device=ids.device)[:, None])[None, None]
        rope = rope_tables(self.config, positions)
        x = functional.embedding(ids, self.embed_tokens.weight).to(self.compute_dtype)
        plain = cache is None and mask is None
        for block in self.layers:
            x = self.run_block(block, x, rope) if plain else block(x, rope, cache, mask)
        if cache is not None:
            cache.advance(time)
        return self.norm(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits `(..., vocabulary)` of `hidden` `(..., width)`."""
        return functional.linear(hidden, self.head.to(hidden.dtype)).float()

    def forward(self, ids: Tensor) -> Tensor:
        """fp32 logits `(batch, time, vocabulary)` of tokens `(batch, time)`."""
        return self.logits(self.hidden(ids))


@torch.no_grad()
def initialise(decoder: Decoder, seed: int) -> None:
    """Fresh weights from `seed`: normal with fan-in scale for matrices, zero for those that write to the residual.

    Zero output projections make every block start as the identity (as in muP practice and nanochat); norms start at 1.
    On top of that the first two layers get an induction circuit, where they can hold one: see `ownlm.model.induction`.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
        elif "embed" in name or "lm_head" in name:
            parameter.normal_(0.0, EMBEDDING_DEVIATION, generator=generator)
        else:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    if can_hold_induction(decoder):
        write_induction(decoder, generator)
