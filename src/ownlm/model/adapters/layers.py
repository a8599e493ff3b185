"""Low-rank updates beside frozen matrices: LoRA, rsLoRA and DoRA on linear layers and embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Matrix(Protocol):
    """A linear layer, plain or quantised."""

    inputs: int
    outputs: int

    def __call__(self, x: Tensor) -> Tensor: ...

    def dense(self) -> Tensor: ...


class LowRank(nn.Module):
    """`W + s B A` for a frozen `W` `(outputs, inputs)` (Hu et al. 2021, arXiv 2106.09685, equation 3).

    `lora_A` `(rank, inputs)`, `lora_B` `(outputs, rank)`, `bias` `(outputs,)` of the update, or None. With `magnitude`
    `(outputs,)` each row of the sum gets that length instead of its own: DoRA (Liu et al. 2024, arXiv 2402.09353,
    equation 5), whose row lengths are constants for the gradient (section 4.3). The parameters are multiplied in the
    input's precision, the row lengths computed in fp32. `dropout` acts where gradients are recorded.
    """

    magnitude: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        lora_A: nn.Parameter,
        lora_B: nn.Parameter,
        scaling: float,
        magnitude: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.lora_A, self.lora_B, self.magnitude, self.bias = lora_A, lora_B, magnitude, bias
        self.scaling, self.dropout = scaling, dropout
        self._lengths: tuple[tuple[int, int], Tensor] | None = None

    @property
    def rank(self) -> int:
        """Columns of `B`."""
        return self.lora_B.shape[1]

    def forward(self, x: Tensor, base: Matrix, base_bias: Tensor | None) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`: the base's answer with the update."""
        y: Tensor = base(x)
        drop = self.dropout > 0 and self.training and torch.is_grad_enabled()
        seen = functional.dropout(x, self.dropout) if drop else x
        low = functional.linear(functional.linear(seen, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))
        if self.bias is not None:
            low = low + self.bias.to(x.dtype)
        if self.magnitude is None:
            return y + low * self.scaling
        factor = self.row_factors(base.dense).to(x.dtype)
        plain = base(seen) if drop else y
        if base_bias is not None:
            plain = plain - base_bias.to(x.dtype)
        return y + (factor - 1) * plain + factor * low * self.scaling

    def embed(self, ids: Tensor, vectors: Tensor, weight: Tensor) -> Tensor:
        """Tokens `(...)` with the base's `vectors` `(..., width)`; here `W` is the embedding's `weight` transposed."""
        low = functional.embedding(ids, self.lora_A.T) @ self.lora_B.T * self.scaling
        if self.magnitude is None:
            return vectors + low.to(vectors.dtype)
        return (self.row_factors(lambda: weight.T) * (vectors.float() + low)).to(vectors.dtype)

    def delta(self) -> Tensor:
        """`s B A` `(outputs, inputs)`, in fp32."""
        return self.lora_B.float() @ self.lora_A.float() * self.scaling

    def row_factors(self, weight: Callable[[], Tensor]) -> Tensor:
        """By what DoRA multiplies each row of `W + s B A` `(outputs,)`; fp32, the row lengths detached.

        `weight` gives `W`, and is only called where the lengths are not known yet. `W` stays the same.
        """
        if self.magnitude is None:
            raise ValueError("only DoRA has row factors")
        return self.magnitude.float() / self._row_lengths(weight)

    @torch.no_grad()
    def _row_lengths(self, weight: Callable[[], Tensor]) -> Tensor:
        """`|W + s B A|` of each row, without that matrix: `|w|^2 + 2 s (w A^T) b + s^2 b A A^T b`."""
        remember = not (self.lora_B.requires_grad or torch.compiler.is_compiling())
        state = (self.lora_A._version, self.lora_B._version) if remember else None
        if self._lengths is not None and self._lengths[0] == state:
            return self._lengths[1]
        w, a, b = weight().float(), self.lora_A.float(), self.lora_B.float()
        across = (functional.linear(w, a) * b).sum(1)
        inside = ((b @ (a @ a.T)) * b).sum(1)
        squares = torch.linalg.vector_norm(w, dim=1).square() + 2 * self.scaling * across + self.scaling**2 * inside
        lengths: Tensor = squares.clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        if state is not None:
            self._lengths = (state, lengths)
        return lengths

    def merged(self, weight: Tensor) -> Tensor:
        """`weight` `(outputs, inputs)` with the update, in fp32."""
        total = weight.float() + self.delta()
        return total if self.magnitude is None else total * self.row_factors(lambda: weight)[:, None]


class AdaptedLinear(nn.Module):
    """A linear layer with a place for one adapter at a time; without one it is its base."""

    adapter: LowRank | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base: Any = base
        self.inputs, self.outputs = _sizes(base)
        self.adapter = None

    @property
    def bias(self) -> Tensor | None:
        """The base's."""
        return getattr(self.base, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`, in `x`'s precision."""
        found: Tensor = self.base(x) if self.adapter is None else self.adapter(x, self.base, self.bias)
        return found

    def dense(self) -> Tensor:
        """The weight that it multiplies by, as a plain matrix `(outputs, inputs)`."""
        weight: Tensor = self.base.dense()
        return weight if self.adapter is None else self.adapter.merged(weight).to(weight.dtype)


class AdaptedEmbedding(nn.Module):
    """An embedding with a place for an adapter of the lookup, and for one of the head where the two are tied.

    As in PEFT either one acts on its own side only, so that together with an adapter the embeddings are not tied.
    """

    adapter: LowRank | None
    head_adapter: LowRank | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base: Any = base
        self.inputs, self.outputs = _sizes(base)
        self.adapter, self.head_adapter = None, None

    def forward(self, ids: Tensor) -> Tensor:
        """`(...)` to `(..., width)`."""
        vectors: Tensor = self.base(ids)
        return vectors if self.adapter is None else self.adapter.embed(ids, vectors, self.base.dense())

    def project(self, hidden: Tensor) -> Tensor:
        """`(..., width)` to logits `(..., vocabulary)`, in `hidden`'s precision."""
        if self.head_adapter is None:
            logits: Tensor = self.base.project(hidden)
        else:
            logits = self.head_adapter(hidden, _TiedHead(self.base), None)
        return logits

    def dense(self) -> Tensor:
        """The head's matrix `(vocabulary, width)`."""
        weight: Tensor = self.base.dense()
        return weight if self.head_adapter is None else self.head_adapter.merged(weight).to(weight.dtype)


def _sizes(matrix: Any) -> tuple[int, int]:
    return matrix.inputs, matrix.outputs


class _TiedHead:
    """An embedding seen as a linear layer."""

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding
        self.inputs, self.outputs = _sizes(embedding)

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = self.embedding.project(x)
        return found

    def dense(self) -> Tensor:
        found: Tensor = self.embedding.dense()
        return found
