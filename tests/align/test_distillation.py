"""The objective with a teacher: its gradient is that of the mixed loss, its value that of the real tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from ownlm.align.distillation import DistillationObjective
from ownlm.align.teacher import draw
from ownlm.data.shards import TokenStream
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import OwnLMError
from ownlm.train.mixture import MixtureObjective, join, joined
from ownlm.train.objective import Objective
from ownlm.train.pretrain import PretrainObjective

IDS = tiny.random_ids(300).numpy()
DRAWN = tiny.random_ids(300, 24, seed=1).numpy().astype(np.uint16)
INNER = PretrainObjective(IDS, "print", context=20, rows=3, micro_batches=2, bytes_per_token=4.0)


def gradients(decoder: Decoder, loss: Tensor) -> list[Tensor]:
    decoder.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None]


def mixed(decoder: Decoder, ids: Tensor, drawn: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The loss of the real tokens, and the mixture, from whole logits."""
    logs = decoder(ids[:, :-1]).flatten(0, 1).log_softmax(-1)
    real = -logs.gather(1, ids[:, 1:].flatten()[:, None]).sum()
    soft = -logs.gather(1, drawn.flatten(0, 1).long()).mean(1).sum()
    return real, (1 - weight) * real + weight * soft


@pytest.mark.parametrize("weight", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("cap", [None, 0.7])
def test_the_gradient_is_that_of_the_mixture(weight: float, cap: float | None) -> None:
    decoder = tiny.decoder(logit_softcap=cap)
    objective = DistillationObjective(INNER, DRAWN, weight)
    batch = objective.batches(2)[1]
    found = objective.loss(decoder, batch)
    real, expected = mixed(decoder, batch.tensors["ids"], batch.tensors["draws"], weight)
    torch.testing.assert_close(found, real, rtol=1e-4, atol=1e-2)
    for one, other in zip(gradients(decoder, found), gradients(decoder, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max() + 1e-6))


def test_draws_go_with_their_tokens() -> None:
    """Draws that repeat the stream's own tokens make it plain pre-training."""
    objective = DistillationObjective(INNER, np.repeat(IDS[:, None], 24, 1).astype(np.uint16))
    decoder = tiny.decoder()
    for one, other in zip(objective.batches(5), INNER.batches(5), strict=True):
        assert torch.equal(one.tensors["ids"], other.tensors["ids"])
        assert torch.equal(one.tensors["draws"], one.tensors["ids"][:, 1:, None].expand(-1, -1, 24).int())
        torch.testing.assert_close(objective.loss(decoder, one), INNER.loss(decoder, other))
        assert (one.weight, one.tokens) == (other.weight, other.tokens)
    assert objective.describe(1.0) == INNER.describe(1.0)
    assert objective.context == 20


def test_draws_stand_for_the_teachers_distribution() -> None:
    """On average the gradient of a few draws is that of the whole distribution; that of the likeliest few is not."""
    teacher, student = tiny.decoder(1), tiny.decoder(2)
    ids = tiny.random_ids(1, 31)
    probabilities = teacher(ids[:, :-1])[0].softmax(-1).detach()
    hidden = student.hidden(ids[:, :-1])[0].detach().requires_grad_()
    weights = torch.ones(30)
    exact = -(probabilities * student.logits(hidden).log_softmax(-1)).sum()
    (wanted,) = torch.autograd.grad(exact, hidden)
    total = torch.zeros_like(wanted)
    for seed in range(400):
        targets = torch.from_numpy(draw(probabilities, np.arange(30), 8, seed))
        total += torch.autograd.grad(student.cross_entropy(hidden, targets, weights), hidden)[0]
    likeliest = probabilities.topk(8).indices
    (biased,) = torch.autograd.grad(student.cross_entropy(hidden, likeliest, weights), hidden)
    error = float((total / 400 - wanted).norm() / wanted.norm())
    assert error < 0.1 < 0.5 * float((biased - wanted).norm() / wanted.norm())


def test_a_student_comes_closer_to_its_teacher() -> None:
    teacher = tiny.decoder(1)
    ids = tiny.random_ids(281, seed=5)
    windows = ids[:-1].view(14, 20)  # as the objective cuts them
    with torch.no_grad():
        wanted = teacher(windows).flatten(0, 1).softmax(-1)
    drawn = np.concatenate((DRAWN[:1], draw(wanted, np.arange(280), 24, 0))).astype(np.uint16)
    inner = dataclasses.replace(INNER, ids=ids.numpy(), rows=14, micro_batches=1)

    def distance(steps: int, objective: Objective) -> float:
        student = tiny.decoder(2)
        optimiser = torch.optim.AdamW(student.parameters(), 3e-3)
        for step in range(steps):
            optimiser.zero_grad()
            (objective.loss(student, objective.batches(step)[0]) / 280).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            logs = student(windows).flatten(0, 1).log_softmax(-1)
            return float(functional.kl_div(logs, wanted, reduction="batchmean"))

    taught = distance(60, DistillationObjective(inner, drawn, 1.0))
    assert taught < 0.75 * distance(0, inner)
    assert distance(60, inner) > 1.2 * taught


def test_it_goes_around_a_mixture_as_well() -> None:
    streams = [
        TokenStream(IDS[:150] if first else IDS[150:], np.array([0, 150]), ["a"], ["prose"], np.array([1]), ["a"])
        for first in (True, False)
    ]
    whole = join(*streams)
    inner = MixtureObjective(whole.ids, "print", context=20, rows=4, border=150, replayed=0.5)
    objective = DistillationObjective(inner, joined(DRAWN[:150], DRAWN[150:]))
    (batch,) = objective.batches(3)
    begins = inner.window_starts(3)
    for row, begin in enumerate(begins):
        assert batch.tensors["ids"][row].tolist() == IDS[begin : begin + 21].tolist()
        assert batch.tensors["draws"][row].tolist() == DRAWN[begin + 1 : begin + 21].tolist()


def test_processes_share_the_draws() -> None:
    whole = torch.cat([b.tensors["draws"] for b in DistillationObjective(INNER, DRAWN).batches(4)])
    parts = [
        batch.tensors["draws"]
        for rank in range(2)
        for batch in DistillationObjective(dataclasses.replace(INNER, share=(rank, 2)), DRAWN).batches(4)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_draws_of_another_stream() -> None:
    with pytest.raises(OwnLMError, match="draws are for 299 tokens, the stream has 300"):
        DistillationObjective(INNER, DRAWN[1:])
    for weight in (0.0, 1.2, -1.0):
        with pytest.raises(OwnLMError, match="above 0 and at most at 1"):
            DistillationObjective(INNER, DRAWN, weight)
