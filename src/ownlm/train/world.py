"""The processes that train one model together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's `rank` among `size`; the default is one process alone, for which every method is trivial."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64."""
        return [float(value) for value in values]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def broadcast(self, value: T) -> T:
        """The main process's value."""
        return value

    def barrier(self) -> None:
        """Waits for all."""

    def gradients(self, model: nn.Module) -> None:
        """After backward: completes gradients that still lack the other processes' shares."""

    def clip(self, parameters: Iterable[Tensor], limit: float) -> float:
        """Scales all gradients so that their norm over all processes is at most `limit`; the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))
