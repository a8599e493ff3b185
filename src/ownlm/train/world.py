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
    """This process's `rank` among `size`; the default is one process alone, for which every method is trivial.

    Each matrix is divided among `tensor_parallel` neighbouring ranks, which all work on the same batches. `device` is
    this process's own ("cuda:3"), `neighbours` how many of the processes run on this machine.
    """

    rank: int = 0
    size: int = 1
    tensor_parallel: int = 1
    device: str = "cpu"
    neighbours: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which part of every batch is this process's, and into how many it is divided."""
        return self.rank // self.tensor_parallel, self.size // self.tensor_parallel

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all shares of the batch, in float64; all processes get the same."""
        return [float(value) for value in values]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def broadcast(self, value: T) -> T:
        """The main process's value."""
        return value

    def collect(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        return [value]

    def gradients(self, model: nn.Module) -> None:
        """After backward: completes gradients that still lack the other processes' shares."""

    def clip(self, parameters: Iterable[Tensor], limit: float) -> float:
        """Scales all gradients so that their norm over all processes is at most `limit`; the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def close(self) -> None:
        """Leaves the group; to be called once, when nothing is to be said to the others any more."""
