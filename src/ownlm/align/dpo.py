"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ownlm.align.packing import Encoded
from ownlm.align.preferences import EncodedPair
from ownlm.data.order import sample_indices
from ownlm.model.decoder import Decoder
from ownlm.train.objective import Batch


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """`-log sigmoid(beta ((log p(y+) - log p_ref(y+)) - (log p(y-) - log p_ref(y-))))`, one value a pair `(pairs,)`.

    Equation 7 of the paper; all arguments are log-probabilities of whole answers `(pairs,)`, in nats.
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -functional.logsigmoid(beta * margin)


def answer_logprobs(decoder: Decoder, ids: Tensor, learnt: Tensor) -> Tensor:
    """The log-probability of each row's marked tokens `(rows,)`, in fp32; `ids`, `learnt` `(rows, time)`."""
    hidden = decoder.hidden(ids)
    rows, places = learnt[:, 1:].nonzero(as_tuple=True)
    logits = decoder.logits(hidden[rows, places])
    tokens = ids[rows, places + 1]
    logprobs = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(-1)
    return torch.zeros(len(ids), dtype=torch.float32, device=ids.device).index_add(0, rows, logprobs)


def pad_rows(examples: Sequence[Encoded], length: int, pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded `(rows, length)` ids and marks; padding comes after the answer, where no mark is."""
    ids = torch.full((len(examples), length), pad)
    learnt = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        learnt[row, : len(example.ids)] = torch.tensor(example.learnt)
    return ids, learnt


@torch.no_grad()
def reference_logprobs(
    decoder: Decoder, pairs: Sequence[EncodedPair], length: int, pad: int, rows: int = 8
) -> tuple[Tensor, Tensor]:
    """The frozen reference's log-probabilities of chosen and rejected answers, `(pairs,)` each, computed once."""
    found = []
    for side in ("chosen", "rejected"):
        examples = [getattr(pair, side) for pair in pairs]
        parts = []
        for first in range(0, len(examples), rows):
            ids, learnt = pad_rows(examples[first : first + rows], length, pad)
            parts.append(answer_logprobs(decoder, ids, learnt))
        found.append(torch.cat(parts))
    return found[0], found[1]


@dataclass(frozen=True)
class DpoObjective:
    """Pairs in batches of `rows`, each as `2 x rows` padded rows of `length` tokens.

    `chosen_weight` adds that share of the chosen answer's own negative log-likelihood per token, which keeps its
    probability from sinking together with the rejected one's (Pang et al. 2024, arXiv 2404.19733, equation 1).
    """

    pairs: Sequence[EncodedPair]
    reference_chosen: Tensor
    reference_rejected: Tensor
    fingerprint: str
    length: int
    rows: int
    pad: int
    beta: float = 0.1
    chosen_weight: float = 0.0
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens a row."""
        return self.length

    def batches(self, step: int) -> list[Batch]:
        """One micro-batch of `rows` pairs: chosen rows first, then the rejected ones."""
        _, drawn = sample_indices(step * self.rows, self.rows, len(self.pairs), self.fingerprint, self.seed)
        indices = drawn.astype(np.int64).tolist()
        sides = [self.pairs[i].chosen for i in indices] + [self.pairs[i].rejected for i in indices]
        ids, learnt = pad_rows(sides, self.length, self.pad)
        tensors = {
            "ids": ids,
            "learnt": learnt,
            "reference_chosen": self.reference_chosen[indices],
            "reference_rejected": self.reference_rejected[indices],
        }
        return [Batch(tensors, weight=float(len(indices)), tokens=ids.numel())]

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Summed loss over the pairs."""
        tensors = batch.tensors
        chosen, rejected = answer_logprobs(decoder, tensors["ids"], tensors["learnt"]).chunk(2)
        losses = dpo_loss(chosen, rejected, tensors["reference_chosen"], tensors["reference_rejected"], self.beta)
        if self.chosen_weight:
            lengths = tensors["learnt"][: len(chosen)].sum(-1).clamp(min=1)
            losses = losses - self.chosen_weight * chosen / lengths
        return losses.sum()

    def describe(self, loss: float) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}
