"""The log-probability of every token of texts of any length, in windows with shared context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownlm.model.decoder import Decoder

Window = tuple[int, int, int, int]
"""text index, first token, last token (exclusive), first token whose prediction counts"""


def token_logprobs(
    decoder: Decoder, texts: Sequence[Sequence[int] | NDArray[np.integer]], start: int, *, rows: int = 16
) -> list[NDArray[np.float32]]:
    """Natural-log probabilities of each token of each text `(len(text),)`, the first one given the token `start`.

    Texts longer than the context are read in windows that overlap by half, so each token past the first window is
    predicted from at least half a context.
    """
    window = decoder.config.context
    sequences = [np.concatenate(([start], np.asarray(text, dtype=np.int64))) for text in texts]
    results = [np.zeros(len(text), dtype=np.float32) for text in texts]
    plan = [(index, *bounds) for index, text in enumerate(texts) for bounds in _windows(len(text), window)]
    plan.sort(key=lambda item: item[2] - item[1], reverse=True)
    for first in range(0, len(plan), rows):
        group = plan[first : first + rows]
        longest = max(end - begin for _, begin, end, _ in group)
        ids = torch.full((len(group), longest + 1), start, dtype=torch.long)
        for row, (index, begin, end, _) in enumerate(group):
            ids[row, : end - begin + 1] = torch.from_numpy(sequences[index][begin : end + 1])
        found = _logprobs(decoder, ids).numpy()
        for row, (index, begin, end, counted) in enumerate(group):
            results[index][counted:end] = found[row, counted - begin : end - begin]
    return results


def _windows(length: int, window: int) -> list[tuple[int, int, int]]:
    """`(begin, end, counted)`: inputs begin..end-1 predict tokens begin..end-1, those from `counted` on are kept."""
    bounds, begin, counted = [], 0, 0
    while counted < length:
        end = min(begin + window, length)
        bounds.append((begin, end, counted))
        counted, begin = end, end - window // 2
    return bounds


@torch.inference_mode()
def _logprobs(decoder: Decoder, ids: Tensor) -> Tensor:
    """`(rows, time)` log-probabilities of `ids[:, 1:]` given what comes before."""
    ids = ids.to(decoder.norm.get_parameter("weight").device)
    hidden = decoder.hidden(ids[:, :-1])
    parts = []
    for row in range(len(ids)):
        logits = decoder.logits(hidden[row])
        chosen = logits.gather(1, ids[row, 1:, None]).squeeze(1)
        parts.append(chosen - logits.logsumexp(-1))
    return torch.stack(parts).cpu()
