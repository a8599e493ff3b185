"""From logits to tokens: penalties, filters and the draw, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ownlm.engine.request import SamplingParams
from ownlm.runtime.counter_random import uniform


@dataclass(frozen=True)
class Drawn:
    """Chosen ids `(rows,)`, their log-probabilities and, if asked for, the best alternatives `(rows, k)`.

    Log-probabilities are the model's own: of the logits before temperature, penalties and filters.
    """

    ids: Tensor
    logprobs: Tensor | None = None
    top_ids: Tensor | None = None
    top_logprobs: Tensor | None = None


def draw(
    logits: Tensor, params: SamplingParams, seeds: Sequence[int], position: int, prompts: Tensor, generated: Tensor
) -> Drawn:
    """Chooses one token a row.

    `logits` `(rows, vocabulary)` fp32; `position` counts the tokens drawn so far; `prompts` and `generated`
    `(rows, vocabulary)` are counts of each token in the prompt and in the answer so far (only read where a penalty is
    on). A row's draw depends on its own seed and position only, never on its neighbours.
    """
    adjusted = _penalise(logits, params, prompts, generated)
    if params.temperature == 0:
        ids = adjusted.argmax(-1)
    else:
        # Best first to 0, so that no temperature, however small, divides a number to infinity.
        cooled = (adjusted - adjusted.amax(-1, keepdim=True)) / max(params.temperature, 1e-30)
        probabilities = _filter(torch.softmax(cooled, -1), params)
        noise = uniform(np.asarray([seed & (2**64 - 1) for seed in seeds], dtype=np.uint64), position)
        cumulative = probabilities.double().cumsum(-1)
        thresholds = torch.from_numpy(noise)[:, None] * cumulative[:, -1:]
        ids = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    if params.logprobs is None:
        return Drawn(ids)
    everything = torch.log_softmax(logits, -1)
    chosen = everything.gather(1, ids[:, None]).squeeze(1)
    best = everything.topk(max(1, params.logprobs), -1)
    return Drawn(ids, chosen, best.indices[:, : params.logprobs], best.values[:, : params.logprobs])


def _penalise(logits: Tensor, params: SamplingParams, prompts: Tensor, generated: Tensor) -> Tensor:
    """Repetition penalty (Keskar et al. 2019, CTRL) on prompt and answer; OpenAI's two penalties on the answer."""
    if params.repetition_penalty != 1.0:
        seen = (prompts + generated) > 0
        scaled = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
        logits = torch.where(seen, scaled, logits)
    if params.presence_penalty or params.frequency_penalty:
        logits = logits - params.presence_penalty * (generated > 0) - params.frequency_penalty * generated
    return logits


def _filter(probabilities: Tensor, params: SamplingParams) -> Tensor:
    """Zeroes what top-k, min-p (Nguyen et al. 2024) and top-p (Holtzman et al. 2020) leave out; not renormalised."""
    if params.top_k and params.top_k < probabilities.shape[1]:
        smallest = probabilities.topk(params.top_k, -1).values[:, -1:]
        probabilities = probabilities.where(probabilities >= smallest, 0.0)
    if params.min_p:
        floor = probabilities.max(-1, keepdim=True).values * params.min_p
        probabilities = probabilities.where(probabilities >= floor, 0.0)
    if params.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        mass_before = ordered.cumsum(-1) - ordered
        kept = ordered.where(mass_before < params.top_p * ordered.sum(-1, keepdim=True), 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, kept)
    return probabilities
