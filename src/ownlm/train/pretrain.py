"""The pre-training objective: predict each next token of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownlm.data.order import sample_indices
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import CorpusError
from ownlm.train.batching import Batching, BatchRamp
from ownlm.train.objective import Batch

NATS_PER_BIT = 0.6931471805599453
NO_RAMP = BatchRamp()


@dataclass(frozen=True)
class PretrainObjective:
    """Windows of `context` tokens from the stream, `rows` a micro-batch, drawn in a counter-based random order.

    `ids` is the token stream, `fingerprint` the id of the artifact that holds it, `bytes_per_token` the corpus'
    average, for bits per byte. A window's last target is the next window's first token: nothing is left untrained.

    A step has `rows * micro_batches` windows over all processes; `share` is this one's (rank, number of processes).
    `starts` `(documents + 1,)` says where documents begin: with `mask_documents` no token sees another document.
    `short_context` (steps, tokens): in the first steps no token sees past such a stretch of its window. `z_loss` as in
    `linear_cross_entropy`. `sha256` are the documents' ids, for what is said of steps that were left out.
    """

    ids: NDArray[Any]
    fingerprint: str
    context: int
    rows: int
    micro_batches: int = 1
    seed: int = 0
    bytes_per_token: float = 1.0
    starts: NDArray[np.int64] | None = None
    sha256: Sequence[str] = ()
    mask_documents: bool = False
    short_context: tuple[int, int] = (0, 0)
    z_loss: float = 0.0
    ramp: BatchRamp = NO_RAMP
    share: tuple[int, int] = (0, 1)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if len(self.ids) <= self.context:
            raise CorpusError(
                f"The corpus has {len(self.ids)} tokens, too few for one window of {self.context} and its next token. "
                "Give more documents, or a shorter context."
            )
        _ = self.batching

    @cached_property
    def batching(self) -> Batching:
        """How the windows of a step are shared out."""
        return Batching(self.rows * self.micro_batches, self.rows, self.ramp, *self.share)

    @property
    def windows(self) -> int:
        """Windows an epoch."""
        return (len(self.ids) - 1) // self.context

    def batches(self, step: int) -> list[Batch]:
        """This process's micro-batches of `step`: `ids` `(rows, context + 1)`, and `first` where sight is limited."""
        starts = self.window_starts(step)
        found = []
        for part in self.batching.own(len(starts)):
            windows = np.stack([self.ids[at : at + self.context + 1] for at in starts[part]]).astype(np.int64)
            tensors = {"ids": torch.from_numpy(windows)}
            if (first := self._first(starts[part], step)) is not None:
                tensors["first"] = torch.from_numpy(first)
            tensors = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
            tokens = len(windows) * self.context
            found.append(Batch(tensors, weight=float(tokens), tokens=tokens))
        return found

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Summed cross-entropy of every next token, in nats."""
        ids = batch.tensors["ids"]
        hidden = decoder.hidden(ids[:, :-1], first=batch.tensors.get("first")).flatten(0, 1)
        targets = ids[:, 1:].flatten()
        weights = torch.ones(len(targets), device=ids.device)
        return decoder.cross_entropy(hidden, targets, weights, self.z_loss)

    def describe(self, loss: float) -> dict[str, float]:
        """Bits per byte of the batch."""
        return {"bits_per_byte": loss / NATS_PER_BIT / self.bytes_per_token}

    def documents(self, step: int) -> list[str]:
        """The documents that the windows of `step` touch, over all processes; none where `sha256` was not given."""
        if self.starts is None or not len(self.sha256):
            return []
        begins = self.window_starts(step)
        lows = np.searchsorted(self.starts, begins, "right") - 1
        highs = np.searchsorted(self.starts, begins + self.context, "right") - 1
        touched = sorted({index for low, high in zip(lows, highs, strict=True) for index in range(low, high + 1)})
        return [self.sha256[index] for index in touched if index < len(self.sha256)]

    def window_starts(self, step: int) -> NDArray[np.int64]:
        """Where the windows of `step` begin in the stream, over all processes."""
        _, indices = sample_indices(*self.batching.draws(step), self.windows, self.fingerprint, self.seed)
        return indices.astype(np.int64) * self.context

    def _first(self, begins: NDArray[np.int64], step: int) -> NDArray[np.int64] | None:
        """The first position of its window that each one sees, `(rows, context)`; None where all see all before."""
        places = np.arange(self.context)
        first = np.zeros((len(begins), self.context), dtype=np.int64)
        limited = False
        if self.mask_documents and self.starts is not None:
            # The end-of-text token before a document is what it is read after, as a text is later on.
            borders = np.maximum(self.starts - 1, 0)
            document = np.searchsorted(borders, begins[:, None] + places, "right") - 1
            first = np.maximum(borders[document] - begins[:, None], 0)
            limited = True
        steps, length = self.short_context
        if step < steps:
            first = np.maximum(first, places // length * length)
            limited = True
        return first if limited else None
