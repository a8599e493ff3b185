"""torch's packed CPU kernels, which are private functions: used where a probe shows that they are there and right."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

PACKED_DTYPE = torch.bfloat16
"""The one precision for which these kernels are fast: with fp32 inputs they run without vector instructions."""
INPUTS_MULTIPLE = 32
"""The int8 kernel reads whole vectors of a row and does not check: other numbers of inputs end in other memory."""
BLOCKS = (64, 32)
"""Rows that the int4 kernel keeps together, with AVX-512 and with AVX2."""


@cache
def int8_works() -> bool:
    """Whether `torch._weight_int8pack_mm` multiplies bf16 by int8 on this processor."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (48, 64), dtype=torch.int8, generator=generator)
    scales = torch.rand(48, generator=generator).to(PACKED_DTYPE)
    return _agrees(
        lambda x: torch._weight_int8pack_mm(x, codes, scales), codes.float() * scales.float()[:, None], generator
    )


@cache
def int4_block() -> int | None:
    """How many rows `torch`'s int4 kernel keeps in a block, if it keeps them as `pack_rows` does; else None."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (128, 64), dtype=torch.int32, generator=generator)
    scales = torch.rand(2, 128, generator=generator).to(PACKED_DTYPE)
    pairs = torch.stack((scales, torch.zeros_like(scales)), dim=-1)
    weight = (codes.float() - 8) * scales.float().T.repeat_interleave(32, dim=1)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    except (RuntimeError, AttributeError):
        return None
    for block in BLOCKS:
        if torch.equal(packed, pack_rows(codes.to(torch.uint8), block)) and _agrees(
            lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, pairs), weight, generator
        ):
            return block
    return None


def pack_rows(codes: Tensor, block: int) -> Tensor:
    """Codes 0 to 15 `(outputs, inputs)` as bytes `(outputs, inputs / 2)`; `outputs` is a multiple of `block`.

    Within a block the bytes are those of `(inputs, block / 2)`: row `i` is in the low four bits of byte `i`, row
    `i + block / 2` in its high four bits.
    """
    outputs, inputs = codes.shape
    low, high = codes.view(-1, 2, block // 2, inputs).unbind(1)
    return (low | high << 4).transpose(1, 2).reshape(outputs, inputs // 2)


def _agrees(multiply, weight: Tensor, generator: torch.Generator) -> bool:  # type: ignore[no-untyped-def]
    """Whether `multiply(x)` gives `x weight^T` for 1 to 5 rows."""
    for rows in range(1, 6):
        x = torch.randn(rows, weight.shape[1], generator=generator).to(PACKED_DTYPE)
        wanted = x.float() @ weight.T
        try:
            found = multiply(x)
        except (RuntimeError, AttributeError):
            return False
        if (found.float() - wanted).abs().max() > 0.01 * wanted.abs().max():
            return False
    return True
