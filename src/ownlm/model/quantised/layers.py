"""Quantised stand-ins for `Linear` and `Embedding`, with the same interface; their weights are frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ownlm.model.quantised import int4, int8, ops
from ownlm.model.quantised.int4 import ReadRows
from ownlm.model.quantised.scheme import Scheme
from ownlm.model.quantised.scratch import CONVERTED, blocks

PACKED_ROWS = {8: 4, 4: 32}
"""Up to how many rows (batch x time) the packed kernels work, by bits, until the crossover was measured."""


class QuantisedWeight(nn.Module):
    """A frozen matrix `(outputs, inputs)` in int8 or int4.

    `codes` and `scales` as in `int8` or `int4`. `packed_rows`: see `PACKED_ROWS`. `dtype` is the precision that the
    weight had: `dense()` gives it back in that.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, codes: Tensor, scales: Tensor, outputs: int, scheme: Scheme, dtype: torch.dtype) -> None:
        super().__init__()
        self.scheme, self.outputs, self.dtype = scheme, outputs, dtype
        self.inputs = codes.shape[1] if scheme.bits == 8 else codes.shape[1] * 2
        self.packed_rows = PACKED_ROWS[scheme.bits]
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight as a plain matrix `(outputs, inputs)`; a new tensor at every call."""
        if self.scheme.bits == 8:
            return int8.dense(self.codes, self.scales, dtype or self.dtype)
        return int4.dense(self.codes, self.scales, self.outputs, dtype or self.dtype)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Codes `(outputs, inputs)` in int8 and scales `(outputs, groups)`, without this machine's layout."""
        if self.scheme.bits == 8:
            return self.codes, self.scales.unsqueeze(1)
        return int4.unpack(self.codes, self.scales, self.outputs)

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, {self.scheme}"

    def _multiply(self, x: Tensor) -> Tensor:
        return ops.multiply(x, self.codes, self.scales, self.outputs, self.packed_rows)


class QuantisedLinear(QuantisedWeight):
    """`y = x W^T + b` with a quantised `W`, differentiable with respect to `x`."""

    bias: nn.Parameter | None

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        outputs: int,
        scheme: Scheme,
        dtype: torch.dtype,
        bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__(codes, scales, outputs, scheme, dtype)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`, in `x`'s precision."""
        y = self._multiply(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class QuantisedEmbedding(QuantisedWeight):
    """A vector a token; with tied embeddings the same codes are the head."""

    def forward(self, ids: Tensor) -> Tensor:
        """`(...)` to `(..., width)`, in the precision that the weight had."""
        if self.scheme.bits == 8:
            return int8.lookup(ids, self.codes, self.scales, self.dtype)
        return int4.lookup(ids, self.codes, self.scales, self.dtype)

    def project(self, hidden: Tensor) -> Tensor:
        """`(..., width)` to logits `(..., vocabulary)`, in `hidden`'s precision."""
        return self._multiply(hidden)


def from_rows(read: ReadRows, inputs: int, scales: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """What `QuantisedWeight` keeps of scales `(outputs, groups)` and of the codes that `read(start, end)` gives.

    `read` gives the rows from `start` to `end` (or to the last one) `(rows, inputs)` in int8.
    """
    if scheme.bits == 4:
        return int4.pack(read, inputs, scales)
    codes = torch.empty(len(scales), inputs, dtype=torch.int8, device=scales.device)
    for start, end in blocks(len(scales), inputs, 1, CONVERTED):
        codes[start:end] = read(start, end)
    return codes, scales.squeeze(1)
