"""Linear layers on NVIDIA GPUs, quantised by torchao."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.layers import Linear
from ownlm.model.quantised.scheme import Scheme
from ownlm.runtime.errors import OwnLMError


class TorchaoLinear(nn.Module):
    """`y = x W^T + b` with torchao's weight-only int8 or int4 kernels, in bf16."""

    def __init__(self, linear: Linear, scheme: Scheme) -> None:
        super().__init__()
        self.inputs, self.outputs, self.scheme = linear.inputs, linear.outputs, scheme
        weight = linear.weight.detach()
        self.dtype, self.bias = weight.dtype, linear.bias
        inner = nn.Linear(linear.inputs, linear.outputs, bias=False, device="meta")
        inner.weight = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
        _torchao().quantize_(nn.Sequential(inner), _config(scheme))
        self.weight = inner.weight

    def forward(self, x: Tensor) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`, in `x`'s precision."""
        y = functional.linear(x.to(torch.bfloat16), self.weight).to(x.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def dense(self) -> Tensor:
        """The weight as a plain matrix `(outputs, inputs)`."""
        found: Tensor = self.weight.dequantize().to(self.dtype)
        return found


def _torchao() -> Any:
    try:
        return import_module("torchao.quantization")
    except ImportError:
        raise OwnLMError(
            "Quantised models on a GPU need torchao: install it (pip install torchao), or run the model on the CPU."
        ) from None


def _config(scheme: Scheme) -> Any:
    library = _torchao()
    if scheme.group is None:
        return library.Int8WeightOnlyConfig()
    return library.Int4WeightOnlyConfig(group_size=scheme.group)
