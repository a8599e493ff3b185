"""The pre-training objective: predict each next token of the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownlm.data.order import sample_indices
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import CorpusError
from ownlm.train.objective import Batch

NATS_PER_BIT = 0.6931471805599453


@dataclass(frozen=True)
class PretrainObjective:
    """Windows of `context` tokens from the stream, `rows` a micro-batch, drawn in a counter-based random order.

    `ids` is the token stream, `fingerprint` the id of the artifact that holds it, `bytes_per_token` the corpus'
    average, for bits per byte. A window's last target is the next window's first token: nothing is left untrained.
    """

    ids: NDArray[Any]
    fingerprint: str
    context: int
    rows: int
    micro_batches: int = 1
    seed: int = 0
    bytes_per_token: float = 1.0

    def __post_init__(self) -> None:
        if len(self.ids) <= self.context:
            raise CorpusError(
                f"The corpus has {len(self.ids)} tokens, too few for one window of {self.context} and its next token. "
                "Give more documents, or a shorter context."
            )

    @property
    def windows(self) -> int:
        """Windows an epoch."""
        return (len(self.ids) - 1) // self.context

    def batches(self, step: int) -> list[Batch]:
        """`rows` windows `(rows, context + 1)` for each micro-batch of `step`."""
        count = self.rows * self.micro_batches
        _, indices = sample_indices(step * count, count, self.windows, self.fingerprint, self.seed)
        starts = indices.astype(np.int64) * self.context
        windows = np.stack([self.ids[start : start + self.context + 1] for start in starts]).astype(np.int64)
        tokens = self.rows * self.context
        return [
            Batch({"ids": torch.from_numpy(windows[first : first + self.rows])}, weight=float(tokens), tokens=tokens)
            for first in range(0, count, self.rows)
        ]

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Summed cross-entropy of every next token, in nats."""
        ids = batch.tensors["ids"]
        hidden = decoder.hidden(ids[:, :-1]).flatten(0, 1)
        targets = ids[:, 1:].flatten()
        weights = torch.ones(len(targets), device=ids.device)
        return decoder.cross_entropy(hidden, targets, weights)

    def describe(self, loss: float) -> dict[str, float]:
        """Bits per byte of the batch."""
        return {"bits_per_byte": loss / NATS_PER_BIT / self.bytes_per_token}
