"""What a training loop needs to know of its objective: batches that can be asked for again, and a loss as a sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ownlm.model.decoder import Decoder


@dataclass(frozen=True)
class Batch:
    """One micro-batch. `weight` is what its loss is divided by (real tokens, or pairs); `tokens` counts work done."""

    tensors: dict[str, Tensor]
    weight: float
    tokens: int


class Objective(Protocol):
    """`batches(step)` depends on the step alone, so that a resumed run sees exactly what an undisturbed one sees."""

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step; the loop sums their losses and divides by the sum of their weights."""
        ...

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """The summed loss (fp32 scalar) of a micro-batch."""
        ...

    def describe(self, loss: float) -> dict[str, float]:
        """Further figures for the metrics file, from the mean loss (bits per byte, ...)."""
        ...


@runtime_checkable
class KnowsDocuments(Protocol):
    """An objective that can tell which documents a step's batch was made of."""

    def documents(self, step: int) -> list[str]:
        """The documents' ids (SHA-256), over all processes."""
        ...
