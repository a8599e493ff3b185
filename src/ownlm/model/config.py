"""The one description of a decoder that every family maps to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True)
class Experts:
    """A mixture of experts (Shazeer et al. 2017; Mixtral, arXiv 2401.04088) in place of the feed-forward of `layers`.

    Each token goes through the `active` best of `count` feed-forwards of `ffn`, weighted by the router's softmax over
    all of them; `renormalise` makes the chosen weights sum to 1. `layers`: indices of the blocks that have experts.
    """

    count: int
    active: int
    ffn: int
    layers: tuple[int, ...]
    renormalise: bool = True


@dataclass(frozen=True)
class DecoderConfig:
    """Shapes and choices of a decoder-only Transformer; the defaults are those of new models (Qwen3's shape).

    `layers` blocks of `width`; attention with `heads` query heads and `kv_heads` key/value heads (grouped-query
    attention, Ainslie et al. 2023) of `head_dim`; a feed-forward of `ffn`, `gated` (SwiGLU and its relatives, Shazeer
    2020) or plain. `context` is the longest sequence in tokens.

    - Norms: `norm` "rms" (Zhang and Sennrich 2019) or "layer" (with bias); `norms` says whether they stand before
      ("pre"), after ("post", OLMo 2) or on both sides ("both", Gemma) of attention and feed-forward; `norm_offset` is
      added to their weight (Gemma's 1). `qk_norm`: RMSNorm over each head's queries and keys ("head", Henry et al.
      2020), over all heads at once ("full", OLMo 2), or none.
    - Positions: rotary ones (`rope`; layers in `layers_without_rope` have none; `local_rope` is that of sliding layers
      where it differs) or learnt ones (`learned_positions`).
    - `sliding_layers` see the last `sliding_window` positions only, themselves included.
    - `attention_scale` multiplies the scores (None: `head_dim ** -0.5`; `scale_by_layer` divides it by the layer's
      number from 1); `attention_softcap` and `logit_softcap` bound scores and logits by `cap * tanh(x / cap)`.
    - `parallel_residual`: attention and feed-forward read the same input (GPT-NeoX).
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    rope: Rope | None = field(default_factory=Rope)
    norm_eps: float = 1e-6
    qk_norm: Literal["head", "full"] | None = "head"
    tied_embeddings: bool = True
    local_rope: Rope | None = None
    layers_without_rope: tuple[int, ...] = ()
    learned_positions: bool = False
    sliding_window: int = 0
    sliding_layers: tuple[int, ...] = ()
    norm: Literal["rms", "layer"] = "rms"
    norms: Literal["pre", "post", "both"] = "pre"
    norm_offset: float = 0.0
    parallel_residual: bool = False
    activation: Activation = "silu"
    gated: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    experts: Experts | None = None
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    scale_by_layer: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    def __post_init__(self) -> None:
        sizes = ("vocabulary", "layers", "width", "heads", "kv_heads", "head_dim", "ffn", "context")
        for name in sizes:
            if getattr(self, name) < 1:
                raise OwnLMError(f"The model's config has {name}={getattr(self, name)}; it must be at least 1.")
        if self.heads % self.kv_heads:
            raise OwnLMError(
                f"The model's config has {self.heads} heads, not a multiple of its {self.kv_heads} kv_heads."
            )
        for rope in (self.rope, self.local_rope):
            if rope is not None and (rope.turning(self.head_dim) % 2 or rope.turning(self.head_dim) < 2):
                raise OwnLMError(
                    f"The model's config has head_dim={self.head_dim}, of which {rope.turning(self.head_dim)} "
                    "dimensions turn; rotary positions need an even number."
                )
        if self.sliding_layers and self.sliding_window < 1:
            raise OwnLMError("The model's config has sliding layers, but no sliding_window.")
        if self.experts is not None and not 1 <= self.experts.active <= self.experts.count:
            raise OwnLMError(
                f"The model's config lets {self.experts.active} of {self.experts.count} experts work on a token."
            )

    @property
    def _norm(self) -> int:
        """Parameters of a norm over one number."""
        return 2 if self.norm == "layer" else 1

    @property
    def attention_matrices(self) -> int:
        """Weights of one layer's four attention matrices."""
        return self.width * self.head_dim * 2 * (self.heads + self.kv_heads)

    def ffn_matrices(self, ffn: int) -> int:
        """Weights of one feed-forward of that size."""
        return (3 if self.gated else 2) * self.width * ffn

    @property
    def matmul_parameters(self) -> int:
        """Weights that are multiplied for every token: all matrices and the head, of the experts only those at work.

        The embedding lookup multiplies nothing.
        """
        total = self.layers * (self.attention_matrices + self.ffn_matrices(self.ffn)) + self.vocabulary * self.width
        if (experts := self.experts) is not None:
            at_work = experts.active * self.ffn_matrices(experts.ffn) + experts.count * self.width
            total += len(experts.layers) * (at_work - self.ffn_matrices(self.ffn))
        return total

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        total = self.matmul_parameters
        if (experts := self.experts) is not None:
            total += len(experts.layers) * (experts.count - experts.active) * self.ffn_matrices(experts.ffn)
        norms = (4 if self.norms == "both" else 2) * self.width * self._norm
        if self.qk_norm == "head":
            norms += 2 * self.head_dim
        elif self.qk_norm == "full":
            norms += self.head_dim * (self.heads + self.kv_heads)
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) * self.qkv_bias + self.width * self.output_bias
        biases += ((2 if self.gated else 1) * self.ffn + self.width) * self.ffn_bias
        total += self.layers * (norms + biases) + self.width * self._norm
        total += self.context * self.width * self.learned_positions
        return total + (0 if self.tied_embeddings else self.vocabulary * self.width)

    def training_flops_per_token(self, time: int) -> float:
        """6 x matmul parameters + causal attention: 2 matmuls of `time/2` keys on average, forward and twice backward.

        The PaLM paper's count (Chowdhery et al. 2022, appendix B), with the causal half of the attention only; no
        embedding lookup, no recomputation.
        """
        return 6 * self.matmul_parameters + 6 * self.layers * self.heads * self.head_dim * time

    def with_(self, **changes: object) -> DecoderConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
