"""What tests of adapters share that needs no other library."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def assert_close(found: torch.Tensor, expected: torch.Tensor, share: float = 2e-5) -> None:
    """No logit differs by more than `share` of the largest one."""
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert difference <= share * largest, f"{difference:.3g} of {largest:.3g}"


class Rounded(nn.Module):
    """A linear layer whose weight is kept in 16 levels a row: what a quantised one looks like from outside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        scale = weight.abs().amax(1, keepdim=True) / 7
        self.levels: Tensor
        self.scale: Tensor
        self.register_buffer("levels", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def dense(self) -> Tensor:
        return self.levels * self.scale

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dense().T.to(x.dtype)
