"""int8 weights: a code a weight, a scale an output channel.

`codes` are int8 `(outputs, inputs)`, `scales` `(outputs,)`; the weight is `codes * scales`. Codes are exact in bf16,
and the scale multiplies the product's columns, so dequantising is a conversion.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ownlm.model.quantised.kernels import INPUTS_MULTIPLE, PACKED_DTYPE, int8_works
from ownlm.model.quantised.scratch import CONVERTED, ELEMENTS, blocks, scratch

HIGHEST = 127
SCALE_DTYPE = torch.bfloat16
"""What the packed kernel takes; the codes are chosen for the rounded scale, so nothing is lost by it."""


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of `(outputs, inputs)`: the largest weight of a channel gets the code 127 or -127."""
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), dtype=SCALE_DTYPE, device=weight.device)
    for start, end in blocks(len(weight), weight.shape[1], 1, CONVERTED):
        part = weight[start:end].float()
        scale = (part.abs().amax(1) / HIGHEST).to(SCALE_DTYPE)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        codes[start:end] = (part / scale.float()[:, None]).round_().clamp_(-HIGHEST, HIGHEST)
        scales[start:end] = scale
    return codes, scales


def multiply(x: Tensor, codes: Tensor, scales: Tensor, packed_rows: int) -> Tensor:
    """`x` `(rows, inputs)` to `(rows, outputs)`, in `x`'s precision; packed up to `packed_rows` rows."""
    if len(x) <= packed_rows and packs(x, codes):
        return torch._weight_int8pack_mm(x.contiguous(), codes, scales.to(x.dtype))
    if codes.numel() <= ELEMENTS:
        return functional.linear(x, _widened(codes, x.dtype)).mul_(scales.to(x.dtype))
    y = x.new_empty(len(x), len(codes))
    for start, end in blocks(len(codes), codes.shape[1], 1):
        y[:, start:end] = functional.linear(x, _widened(codes[start:end], x.dtype))
    return y.mul_(scales.to(x.dtype))


def packs(x: Tensor, codes: Tensor) -> bool:
    """Whether the packed kernel can multiply these."""
    return x.dtype is PACKED_DTYPE and x.is_cpu and codes.shape[1] % INPUTS_MULTIPLE == 0 and int8_works()


def multiply_back(grad: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """The gradient of the input `(rows, inputs)` from that of the output `(rows, outputs)`."""
    scaled = grad * scales.to(grad.dtype)
    if codes.numel() <= ELEMENTS:
        return scaled @ _widened(codes, grad.dtype)
    total = torch.zeros(len(grad), codes.shape[1], dtype=torch.float32, device=grad.device)
    for start, end in blocks(len(codes), codes.shape[1], 1):
        total += scaled[:, start:end] @ _widened(codes[start:end], grad.dtype)
    return total.to(grad.dtype)


def lookup(ids: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows `(..., inputs)` of `ids` `(...)`."""
    return (codes[ids].float() * scales[ids].float().unsqueeze(-1)).to(dtype)


def dense(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight `(outputs, inputs)`."""
    out = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    for start, end in blocks(len(codes), codes.shape[1], 1):
        out[start:end] = codes[start:end].float() * scales[start:end].float()[:, None]
    return out


def _widened(codes: Tensor, dtype: torch.dtype) -> Tensor:
    return scratch(codes.numel(), dtype, codes.device).view(codes.shape).copy_(codes)
