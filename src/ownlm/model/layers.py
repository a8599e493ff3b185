"""The small layers: matrices that follow their input's precision, embeddings, norms and the feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.config import Activation, DecoderConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}


class Linear(nn.Linear):
    """`y = x W^T + b`. The weight is a master copy (fp32 in training) and is multiplied in `x`'s precision.

    One of torch's own, so that torch's tools for tensor parallelism and float8 know it.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self.inputs, self.outputs = inputs, outputs

    def reset_parameters(self) -> None:
        """Leaves the weights as they are: `initialise` or a file fills them."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`."""
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def dense(self) -> Tensor:
        """The weight as a plain matrix `(outputs, inputs)`."""
        return self.weight


class Embedding(nn.Module):
    """A vector a token; the same matrix is the head of a model with tied embeddings."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.inputs, self.outputs = width, vocabulary  # as a head
        self.weight = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, ids: Tensor) -> Tensor:
        """`(...)` to `(..., width)`, in the weight's precision."""
        return functional.embedding(ids, self.weight)

    def project(self, hidden: Tensor) -> Tensor:
        """`(..., width)` to logits `(..., vocabulary)`, in `hidden`'s precision."""
        return functional.linear(hidden, self.weight.to(hidden.dtype))

    def dense(self) -> Tensor:
        """The weight as a plain matrix `(vocabulary, width)`."""
        return self.weight


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * (weight + offset)` over the last dimension, in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and precision as `x`."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        weight = self.weight.float() + self.offset if self.offset else self.weight.float()
        return (normed * weight).to(x.dtype)


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension, in fp32 (Ba et al. 2016)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and precision as `x`."""
        shape = self.weight.shape
        return functional.layer_norm(x.float(), shape, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


def norm_of(config: DecoderConfig) -> nn.Module:
    """A norm over `width`, of the kind that the config asks for."""
    if config.norm == "layer":
        return LayerNorm(config.width, config.norm_eps)
    return RMSNorm(config.width, config.norm_eps, config.norm_offset)


class FeedForward(nn.Module):
    """`down(activation(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202), or `down(activation(up(x)))` ungated."""

    def __init__(self, config: DecoderConfig, ffn: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.gate_proj = Linear(config.width, ffn, config.ffn_bias) if config.gated else None
        self.up_proj = Linear(config.width, ffn, config.ffn_bias)
        self.down_proj = Linear(ffn, config.width, config.ffn_bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to `(..., width)`."""
        if self.gate_proj is None:
            inner = self.activation(self.up_proj(x).float())
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
            inner = self.activation(gate.float()) * up.float()
        return self.down_proj(inner.to(x.dtype))  # type: ignore[no-any-return]
