"""Distillation in pre-training: the student learns the next tokens that its teacher would draw, and the real ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import OwnLMError
from ownlm.train.objective import Batch
from ownlm.train.pretrain import PretrainObjective

WEIGHT = 0.75
"""The teacher's share of the loss."""


@dataclass(frozen=True)
class DistillationObjective:
    """`(1 - w) CE(token) + w CE(teacher)` (Hinton et al. 2015, arXiv 1503.02531) over the windows of `inner`.

    `draws` `(tokens, count)` are ids that the teacher drew for each token of `inner`'s stream; the mean over them
    stands for its distribution. The value of the loss stays that of the real tokens, so that it can be compared with
    that of a training without a teacher; its gradient is that of the sum above.

    Raises:
        OwnLMError: draws of another stream, or a `weight` outside of 0 (excluded) to 1.
    """

    inner: PretrainObjective
    draws: NDArray[Any]
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if len(self.draws) != len(self.inner.ids):
            raise OwnLMError(
                f"The teacher's draws are for {len(self.draws):,} tokens, the stream has {len(self.inner.ids):,}: they "
                "belong to another one."
            )
        if not 0 < self.weight <= 1:
            raise OwnLMError(f"A teacher's share of {self.weight:g} makes no sense: it lies above 0 and at most at 1.")

    @property
    def context(self) -> int:
        """Tokens a window."""
        return self.inner.context

    def batches(self, step: int) -> list[Batch]:
        """Those of `inner`, with `draws` `(rows, context, count)` for the targets."""
        starts = self.inner.window_starts(step)
        parts = self.inner.batching.own(len(starts))
        return [
            dataclasses.replace(batch, tensors={**batch.tensors, "draws": self._drawn(starts[part])})
            for batch, part in zip(self.inner.batches(step), parts, strict=True)
        ]

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Summed loss of every next token, in nats: see the class."""
        ids, inner = batch.tensors["ids"], self.inner
        hidden = decoder.hidden(ids[:, :-1], first=batch.tensors.get("first")).flatten(0, 1)
        real, drawn = ids[:, 1:].flatten(), batch.tensors["draws"].flatten(0, 1).long()
        # Equal weights: as many copies of the real token as make its share of them 1 - weight.
        copies = round(drawn.shape[1] * (1 - self.weight) / self.weight)
        targets = torch.cat((real[:, None].expand(-1, copies), drawn), 1)
        weights = torch.ones(len(real), device=ids.device)
        mixed = decoder.cross_entropy(hidden, targets, weights, inner.z_loss)
        return mixed + _difference(decoder, hidden, real, targets, mixed)

    def describe(self, loss: float) -> dict[str, float]:
        """See `PretrainObjective.describe`."""
        return self.inner.describe(loss)

    def documents(self, step: int) -> list[str]:
        """See `PretrainObjective.documents`."""
        return self.inner.documents(step)

    def _drawn(self, starts: NDArray[np.int64]) -> Tensor:
        length = self.inner.context
        found = np.stack([self.draws[at + 1 : at + 1 + length] for at in starts])
        # The narrowest type that torch knows on every device.
        return torch.from_numpy(found.astype(np.int32)).to(self.inner.device, non_blocking=True)


@torch.no_grad()
def _difference(decoder: Decoder, hidden: Tensor, real: Tensor, targets: Tensor, mixed: Tensor) -> Tensor:
    """What the cross-entropy of the real tokens is above that of `targets`: a constant for the gradient.

    Both hold the same `log Z`, so it is the difference of two logits: no second pass over the vocabulary.
    """
    if decoder.config.logit_softcap is not None:  # a mean of capped logits is not the cap of a mean
        ones = torch.ones(len(real), device=hidden.device)
        return decoder.cross_entropy(hidden, real, ones) - mixed
    head = decoder.head.to(hidden.dtype)
    expected = functional.embedding_bag(targets, head, mode="mean") - functional.embedding(real, head)
    return (hidden.float() * expected.float()).sum()
