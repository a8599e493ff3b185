"""The key/value cache protocol, and a preallocated one for a batch of equal length."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ownlm.model.config import DecoderConfig


class Cache(Protocol):
    """Keeps the keys and values of earlier positions."""

    @property
    def length(self) -> int:
        """Positions already stored, the same for every row."""
        ...

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `(batch, kv_heads, time, head_dim)` and returns all positions so far, the new ones included."""
        ...

    def advance(self, time: int) -> None:
        """Called once a forward pass, after the last layer."""
        ...


class StaticCache:
    """`(layers, batch, kv_heads, capacity, head_dim)` for keys and for values, allocated once."""

    def __init__(
        self, config: DecoderConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """Positions already stored."""
        return self._length

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cache.append`."""
        start, end = self._length, self._length + keys.shape[2]
        self.keys[layer, :, :, start:end] = keys
        self.values[layer, :, :, start:end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, time: int) -> None:
        """See `Cache.advance`."""
        self._length += time

    def clear(self) -> None:
        """Forgets all positions."""
        self._length = 0

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows `(rows,)` of the batch, in this order."""
        layers, _, heads, capacity, size = self.keys.shape
        for name in ("keys", "values"):
            kept = torch.empty((layers, len(rows), heads, capacity, size), dtype=self.keys.dtype, device=rows.device)
            kept[:, :, :, : self._length] = getattr(self, name)[:, rows, :, : self._length]
            setattr(self, name, kept)
