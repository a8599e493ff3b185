"""The decoder: embeddings, a stack of blocks, a final norm and a head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ownlm.model.attention import Attention, RopeTables
from ownlm.model.cache import Cache
from ownlm.model.config import DecoderConfig
from ownlm.model.cross_entropy import SoftmaxGradient, linear_cross_entropy, softcapped, softmax_gradient
from ownlm.model.experts import ExpertFeedForward
from ownlm.model.induction import can_hold_induction, write_induction
from ownlm.model.layers import Embedding, FeedForward, Linear, norm_of

BlockFunction = Callable[..., Tensor]

EMBEDDING_DEVIATION = 0.05
"""Larger than the usual 0.02: the first steps must not drown what the induction circuit reads."""


class Block(nn.Module):
    """One layer: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.

    A family without norms before or after has `nn.Identity` there; with `parallel_residual` both read the same `x`.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        before, after = config.norms != "post", config.norms != "pre"
        experts = config.experts
        self.parallel_residual = config.parallel_residual
        self.attn_norm = norm_of(config) if before else nn.Identity()
        self.self_attn = Attention(config, layer)
        self.attn_post_norm = norm_of(config) if after else nn.Identity()
        self.ffn_norm = norm_of(config) if before else nn.Identity()
        self.mlp: nn.Module
        if experts is not None and layer in experts.layers:
            self.mlp = ExpertFeedForward(config, experts)
        else:
            self.mlp = FeedForward(config, config.ffn)
        self.ffn_post_norm = norm_of(config) if after else nn.Identity()

    def forward(
        self,
        x: Tensor,
        rope: RopeTables | None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """`(batch, time, width)` to the same; the other arguments are those of `Attention`."""
        attended = x + self.attn_post_norm(self.self_attn(self.attn_norm(x), rope, cache, mask, first))
        read = x if self.parallel_residual else attended
        return attended + self.ffn_post_norm(self.mlp(self.ffn_norm(read)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """A decoder-only Transformer described by one `DecoderConfig`.

    The master weights keep their own precision; activations flow in `compute_dtype`. Norms, rotary positions, softmax
    and everything after the logits are fp32. `run_block` runs a block on plain causal input; `kernels.use` may put a
    compiled function there. `recompute` keeps only the blocks' inputs for the backward pass (Chen et al. 2016, arXiv
    1604.06174): a third more compute for a fraction of the memory.
    """

    def __init__(self, config: DecoderConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        self.embed_tokens = Embedding(config.vocabulary, config.width)
        self.embed_positions = Embedding(config.context, config.width) if config.learned_positions else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = norm_of(config)
        self.lm_head = None if config.tied_embeddings else Linear(config.width, config.vocabulary)
        self.run_block: BlockFunction = Block.__call__
        self.softmax_gradient: SoftmaxGradient = softmax_gradient
        self.recompute = False

    @property
    def head(self) -> Tensor:
        """The head's matrix `(vocabulary, width)`: its own, or the embedding's."""
        return self.embed_tokens.dense() if self.lm_head is None else self.lm_head.dense()

    def hidden(
        self,
        ids: Tensor,
        *,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        mask: Tensor | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """The last layer's normalised output `(batch, time, width)` for tokens `(batch, time)`.

        `positions` `(time,)` or `(batch, time)` default to those that follow the cache. `mask` and `first` as in
        `Attention`; `first` keeps the documents of a row apart. With a cache and several new tokens a mask is made
        here, since keys then outnumber queries. What the sliding layers see of it is worked out here too.
        """
        time = ids.shape[1]
        past = 0 if cache is None else cache.length
        if positions is None:
            positions = torch.arange(past, past + time, device=ids.device)
        if mask is None and past and time > 1:
            mask = _causal(past, time, ids.device)
        plain = cache is None and mask is None
        local_mask = None if plain else self._local_mask(mask, past, time, ids.device)
        local_first = self._local_first(first, time, ids.device) if plain else None
        tables = self._rope_tables(positions)
        x = self._embed(ids, positions)
        for block, (sliding, rope) in zip(self.layers, tables, strict=True):
            if plain:
                x = self._run(block, x, rope, local_first if sliding else first)
            else:
                x = block(x, rope, cache, local_mask if sliding else mask)
        if cache is not None:
            cache.advance(time)
        return self.norm(x)  # type: ignore[no-any-return]

    def _run(self, block: nn.Module, x: Tensor, rope: RopeTables | None, first: Tensor | None) -> Tensor:
        """A block on plain input; with `recompute` its activations are worked out again when gradients need them."""
        if self.recompute and torch.is_grad_enabled():
            again: Tensor = checkpoint(self.run_block, block, x, rope, None, None, first, use_reentrant=False)
            return again
        return self.run_block(block, x, rope, None, None, first)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self.embed_tokens(ids).to(self.compute_dtype)
        if self.config.embedding_scale != 1.0:
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype)
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions).to(x.dtype)
        return x  # type: ignore[no-any-return]

    def _local_mask(self, mask: Tensor | None, past: int, time: int, device: torch.device) -> Tensor | None:
        """What the sliding layers see of `mask`: the last `sliding_window` keys up to the query's own place."""
        config = self.config
        if not config.sliding_layers or past + time <= config.sliding_window:
            return mask
        causal = _causal(past, time, device)
        near = causal & ~causal.tril(past - config.sliding_window)
        return near if mask is None else mask & near

    def _local_first(self, first: Tensor | None, time: int, device: torch.device) -> Tensor | None:
        """The first position that each one sees in the sliding layers."""
        config = self.config
        if not config.sliding_layers or time <= config.sliding_window:
            return first
        begins = (torch.arange(time, device=device) - config.sliding_window + 1).clamp(min=0)[None]
        return begins if first is None else torch.maximum(first, begins)

    def _rope_tables(self, positions: Tensor) -> list[tuple[bool, RopeTables | None]]:
        """For each layer: whether it slides, and its cosines and sines (None: it has no rotary positions)."""
        config = self.config
        made: dict[bool, RopeTables | None] = {}
        rows: list[tuple[bool, RopeTables | None]] = []
        for layer in range(config.layers):
            sliding = layer in config.sliding_layers
            own = sliding and config.local_rope is not None
            if own not in made:
                rope = config.local_rope if own else config.rope
                made[own] = None if rope is None else rope.tables(positions, config.head_dim)
            rows.append((sliding, None if layer in config.layers_without_rope else made[own]))
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits `(..., vocabulary)` of `hidden` `(..., width)`."""
        found = self.embed_tokens.project(hidden) if self.lm_head is None else self.lm_head(hidden)
        cap = self.config.logit_softcap
        return found.float() if cap is None else cap * torch.tanh(found.float() / cap)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, weights: Tensor, z_loss: float = 0.0) -> Tensor:
        """See `linear_cross_entropy`: the weighted sum of the targets' `-log p`, in nats, without a logits tensor.

        `hidden` `(tokens, width)`, `targets` `(tokens,)` or `(tokens, draws)`, `weights` `(tokens,)`.
        """
        cap = self.config.logit_softcap
        kernel = self.softmax_gradient if cap is None else softcapped(self.softmax_gradient, cap)
        return linear_cross_entropy(hidden, self.head, targets, weights, kernel, z_loss)

    def forward(self, ids: Tensor) -> Tensor:
        """fp32 logits `(batch, time, vocabulary)` of tokens `(batch, time)`."""
        return self.logits(self.hidden(ids))


def _causal(past: int, time: int, device: torch.device) -> Tensor:
    """`(1, 1, time, past + time)`: true where a key is not after the query."""
    return torch.ones(1, 1, time, past + time, dtype=torch.bool, device=device).tril(past)


@torch.no_grad()
def initialise(decoder: Decoder, seed: int) -> None:
    """Fresh weights from `seed`: normal with fan-in scale for matrices, zero for those that write to the residual.

    Zero output projections make every block start as the identity (as in muP practice and nanochat); norms start at 1,
    biases at 0. On top of that the first two layers get an induction circuit, where they can hold one: see
    `ownlm.model.induction`.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in decoder.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim < 2:
            parameter.fill_(1.0 - decoder.config.norm_offset)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
        elif "embed" in name or "lm_head" in name:
            parameter.normal_(0.0, EMBEDDING_DEVIATION, generator=generator)
        else:
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    if can_hold_induction(decoder):
        write_induction(decoder, generator)
