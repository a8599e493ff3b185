"""The one description of a decoder that every family maps to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ownlm.runtime.errors import OwnLMError


@dataclass(frozen=True)
class DecoderConfig:
    """Shapes and choices of a decoder-only Transformer.

    `layers` blocks of `width`; attention with `heads` query heads and `kv_heads` key/value heads (grouped-query
    attention, Ainslie et al. 2023) of `head_dim`; a SwiGLU feed-forward of `ffn` (Shazeer 2020); RMSNorm before each
    (Zhang and Sennrich 2019) and, with `qk_norm`, over each head's queries and keys (Henry et al. 2020); rotary
    positions with base `rope_theta` (Su et al. 2021). `context` is the longest sequence in tokens.
    """

    vocabulary: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    tied_embeddings: bool = True

    def __post_init__(self) -> None:
        sizes = ("vocabulary", "layers", "width", "heads", "kv_heads", "head_dim", "ffn", "context")
        for name in sizes:
            if getattr(self, name) < 1:
                raise OwnLMError(f"The model's config has {name}={getattr(self, name)}; it must be at least 1.")
        if self.heads % self.kv_heads:
            raise OwnLMError(
                f"The model's config has {self.heads} heads, not a multiple of its {self.kv_heads} kv_heads."
            )
        if self.head_dim % 2:
            raise OwnLMError(f"The model's config has head_dim={self.head_dim}; rotary positions need an even one.")

    @property
    def matmul_parameters(self) -> int:
        """Parameters that are multiplied for every token: all matrices and the head, not the embedding lookup."""
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.ffn) + self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        norms = self.layers * (2 * self.width + (2 * self.head_dim if self.qk_norm else 0)) + self.width
        embeddings = 0 if self.tied_embeddings else self.vocabulary * self.width
        return self.matmul_parameters + norms + embeddings

    def training_flops_per_token(self, time: int) -> float:
        """6 x matmul parameters + causal attention: 2 matmuls of `time/2` keys on average, forward and twice backward.

        The PaLM paper's count (Chowdhery et al. 2022, appendix B), with the causal half of the attention only; no
        embedding lookup, no recomputation.
        """
        return 6 * self.matmul_parameters + 6 * self.layers * self.heads * self.head_dim * time

    def with_(self, **changes: object) -> DecoderConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
