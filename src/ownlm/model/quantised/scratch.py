"""The one buffer that weights are dequantised into, a block of rows at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

ELEMENTS = 1 << 22
"""Numbers in the buffer: 8 MB in bf16. A matrix of a small model fits as a whole."""
CONVERTED = 1 << 18
"""Numbers that are quantised at a time: their copies in fp32 stay in the cache, and leave no holes in the memory."""


class _Buffers(threading.local):
    """One for each thread that computes, so that two models never share it at the same time."""

    def __init__(self) -> None:
        self.of: dict[tuple[torch.dtype, torch.device], Tensor] = {}


_buffers = _Buffers()


def scratch(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`(elements,)` to write into; what another call gave is overwritten."""
    key = dtype, device
    buffer = _buffers.of.get(key)
    if buffer is None or buffer.numel() < elements:
        with torch.inference_mode(False):
            buffer = _buffers.of[key] = torch.empty(max(elements, ELEMENTS), dtype=dtype, device=device)
    return buffer[:elements]


def blocks(rows: int, columns: int, multiple: int, elements: int = ELEMENTS) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) row of equal parts of `(rows, columns)`, of at most `elements` numbers each.

    They are multiples of `multiple`, and at least that, however wide the rows are.
    """
    count = -(-rows * columns // elements)
    step = -(-rows // (count * multiple)) * multiple
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
