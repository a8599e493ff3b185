"""Supervised fine-tuning: learn the assistant's tokens of conversations, and only those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ownlm.align.examples import InstructionExample
from ownlm.align.packing import Encoded, Packed
from ownlm.data.chat_format import ChatFormat
from ownlm.data.order import sample_indices
from ownlm.data.tokenizer import Tokenizer
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import OwnLMError
from ownlm.train.objective import Batch


def encode_examples(examples: Sequence[InstructionExample], tokenizer: Tokenizer, chat: ChatFormat) -> list[Encoded]:
    """Renders each conversation and marks the assistant's tokens.

    Raises:
        OwnLMError: a conversation without any token to learn.
    """
    encoded = []
    for example in examples:
        ids, learnt = chat.encode(tokenizer, example.messages)
        if not any(learnt):
            raise OwnLMError(f"The chat template leaves nothing to learn of the example from {example.source}.")
        encoded.append(Encoded(ids, learnt))
    return encoded


@dataclass(frozen=True)
class SftObjective:
    """Cross-entropy on the assistant's tokens of packed conversations.

    Position t predicts token t + 1, so the token at t + 1 decides whether the prediction at t counts.
    """

    packed: Packed
    fingerprint: str
    rows: int
    pad: int
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens a row."""
        return int(self.packed.ids.shape[1])

    def batches(self, step: int) -> list[Batch]:
        """One micro-batch of `rows` packed rows."""
        _, indices = sample_indices(step * self.rows, self.rows, len(self.packed.ids), self.fingerprint, self.seed)
        return [self.batch(indices.astype(np.int64).tolist())]

    def batch(self, rows: Sequence[int]) -> Batch:
        """These packed rows as inputs, targets and weights `(rows, context)`."""
        ids = torch.from_numpy(self.packed.ids[list(rows)])
        learnt = torch.from_numpy(self.packed.learnt[list(rows)])
        end = torch.full((len(ids), 1), self.pad)
        targets = torch.cat((ids[:, 1:], end), dim=1)
        weights = torch.cat((learnt[:, 1:], torch.zeros_like(learnt[:, :1])), dim=1).float()
        return Batch(
            {"ids": ids, "targets": targets, "weights": weights},
            weight=max(1.0, float(weights.sum())),
            tokens=ids.numel(),
        )

    def loss(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Summed cross-entropy of the assistant's tokens, in nats."""
        hidden = decoder.hidden(batch.tensors["ids"]).flatten(0, 1)
        return decoder.cross_entropy(hidden, batch.tensors["targets"].flatten(), batch.tensors["weights"].flatten())

    def describe(self, loss: float) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}
