"""int4 weights: a code a weight, two in a byte, and a scale a group of inputs.

`codes` are bytes `(rows, inputs / 2)` as `kernels.pack_rows` writes them: what torch's packed kernel multiplies. `rows`
are the outputs, filled up with zeros to a multiple of 64. `scales` `(inputs / group, rows, 2)` has each group's scale
and, as the kernel wants, an offset, which is zero here. The weight is `(code - 8) * scale`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ownlm.model.quantised.int8 import SCALE_DTYPE
from ownlm.model.quantised.kernels import BLOCKS, PACKED_DTYPE, int4_block, pack_rows
from ownlm.model.quantised.scratch import CONVERTED, ELEMENTS, blocks, scratch

ROWS_MULTIPLE = max(BLOCKS)
ReadRows = Callable[[int, int], Tensor]
"""Gives the codes of the rows from the first number to the second, or to the last row."""


def block_rows() -> int:
    """Rows whose codes are stored together."""
    return int4_block() or ROWS_MULTIPLE


def quantise(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of `(outputs, inputs)`; `group` divides `inputs`.

    The weight of largest magnitude in a group gets the code -8, whatever its sign: the scale has the opposite one. So
    all 16 codes are used (llama.cpp's Q4_0 does the same).
    """
    outputs, inputs = weight.shape
    codes, scales = _empty(outputs, inputs, group, SCALE_DTYPE, weight.device)
    for start, end in blocks(len(codes), inputs, ROWS_MULTIPLE, CONVERTED):
        part = weight[start:end].float().view(-1, inputs // group, group)
        extreme = part.gather(2, part.abs().argmax(2, keepdim=True))
        scale = (extreme / -8).to(SCALE_DTYPE)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        found = (part / scale.float()).round_().clamp_(-8, 7).view(-1, inputs)
        _put(codes, scales, start, found.to(torch.int8), scale.squeeze(2))
    return codes, scales


def pack(read: ReadRows, inputs: int, scales: Tensor) -> tuple[Tensor, Tensor]:
    """To the layout of this module, from scales `(outputs, groups)` and codes -8 to 7 a few rows at a time."""
    found = _empty(len(scales), inputs, inputs // scales.shape[1], scales.dtype, scales.device)
    for start, end in blocks(len(found[0]), inputs, ROWS_MULTIPLE, CONVERTED):
        _put(*found, start, read(start, end), scales[start:end])
    return found


def _empty(outputs: int, inputs: int, group: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = -(-outputs // ROWS_MULTIPLE) * ROWS_MULTIPLE
    codes = torch.empty(rows, inputs // 2, dtype=torch.uint8, device=device)
    return codes, torch.zeros(inputs // group, rows, 2, dtype=dtype, device=device)


def _put(codes: Tensor, scales: Tensor, start: int, part: Tensor, part_scales: Tensor) -> None:
    """Writes codes -8 to 7 and their scales from row `start` on; the last rows may be missing."""
    shifted = functional.pad(part + 8, (0, 0, 0, -len(part) % ROWS_MULTIPLE), value=8).to(torch.uint8)
    codes[start : start + len(shifted)] = pack_rows(shifted, block_rows())
    scales[:, start : start + len(part), 0] = part_scales.T


def unpack(codes: Tensor, scales: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """The reverse of `pack`."""
    low, high = _halves(codes)
    whole = torch.stack((low, high), dim=1).transpose(2, 3).reshape(-1, low.shape[1])
    return whole[:outputs].to(torch.int8) - 8, scales[:, :outputs, 0].T.contiguous()


def multiply(x: Tensor, codes: Tensor, scales: Tensor, outputs: int, packed_rows: int) -> Tensor:
    """`x` `(rows, inputs)` to `(rows, outputs)`, in `x`'s precision; packed up to `packed_rows` rows."""
    if len(x) <= packed_rows and packs(x):
        pairs = scales.to(x.dtype)
        group = x.shape[1] // len(scales)
        found: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.contiguous(), codes, group, pairs)
    elif codes.numel() * 2 <= ELEMENTS:
        found = x @ _widened(codes, scales, x.dtype)
    else:
        found = x.new_empty(len(x), len(codes))
        for start, end in blocks(len(codes), x.shape[1], ROWS_MULTIPLE):
            found[:, start:end] = x @ _widened(codes[start:end], scales[:, start:end], x.dtype)
    return found if len(codes) == outputs else found[:, :outputs].contiguous()


def packs(x: Tensor) -> bool:
    """Whether the packed kernel can multiply this."""
    return x.dtype is PACKED_DTYPE and x.is_cpu and int4_block() is not None


def multiply_back(grad: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """The gradient of the input `(rows, inputs)` from that of the output `(rows, outputs)`."""
    grad = functional.pad(grad, (0, len(codes) - grad.shape[1]))
    if codes.numel() * 2 <= ELEMENTS:
        return grad @ _widened(codes, scales, grad.dtype).T
    inputs = codes.shape[1] * 2
    total = torch.zeros(len(grad), inputs, dtype=torch.float32, device=grad.device)
    for start, end in blocks(len(codes), inputs, ROWS_MULTIPLE):
        total += grad[:, start:end] @ _widened(codes[start:end], scales[:, start:end], grad.dtype).T
    return total.to(grad.dtype)


def lookup(ids: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows `(..., inputs)` of `ids` `(...)`."""
    block, half = block_rows(), block_rows() // 2
    place = ids % block
    found = codes.view(-1, codes.shape[1] * 2, half)[ids // block, :, place % half]
    nibbles = torch.where((place < half).unsqueeze(-1), found & 15, found >> 4).float() - 8
    factors = scales[..., 0].T[ids].float().unsqueeze(-1)
    return (nibbles.view(*ids.shape, len(scales), -1) * factors).flatten(-2).to(dtype)


def dense(codes: Tensor, scales: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """The weight `(outputs, inputs)`."""
    inputs = codes.shape[1] * 2
    out = torch.empty(len(codes), inputs, dtype=dtype, device=codes.device)
    for start, end in blocks(len(codes), inputs, ROWS_MULTIPLE):
        out[start:end] = _widened(codes[start:end], scales[:, start:end], dtype).T
    return out[:outputs]


def _halves(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half of each block's rows, codes 0 to 15, `(blocks, inputs, block / 2)`."""
    parts = codes.view(-1, codes.shape[1] * 2, block_rows() // 2)
    return parts & 15, parts >> 4


def _widened(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight of these rows, transposed: `(inputs, rows)`, in the scratch buffer."""
    rows, inputs, half = len(codes), codes.shape[1] * 2, block_rows() // 2
    buffer = scratch(rows * inputs, dtype, codes.device)
    places = buffer.view(inputs, -1, 2, half)
    for index, nibbles in enumerate(_halves(codes)):
        places[:, :, index] = nibbles.transpose(0, 1)
    factors = scales[..., 0].contiguous().to(dtype).unsqueeze(1)
    groups = buffer.view(len(scales), -1, rows)
    torch.addcmul(factors * -8, groups, factors, out=groups)
    return buffer.view(inputs, rows)
