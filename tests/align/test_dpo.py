"""DPO against the published equation, and log-probabilities against a loop over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import tiny
from ownlm.align.dpo import DpoObjective, answer_logprobs, dpo_loss, pad_rows, reference_logprobs
from ownlm.align.packing import Encoded
from ownlm.align.preferences import EncodedPair, PreferencePair, encode_pairs
from ownlm.data.chat_format import ChatFormat
from ownlm.data.message import Message
from ownlm.model.decoder import Decoder
from ownlm.model.kernels import Kernels, use

LENGTH = 48
PAD = tiny.tokenizer().end_of_text
ANSWERS = (("return first", "no"), ("The dog sleeps on.", "The fox"), ("print(index)", "index index"), ("a", "b c d"))
FLOAT32, BFLOAT16 = Kernels(), Kernels("bfloat16", "tiled")


def pairs(count: int = 4) -> list[EncodedPair]:
    made = [
        PreferencePair((Message.of("user", f"Question {number}?"),), chosen, rejected)
        for number, (chosen, rejected) in enumerate(ANSWERS[:count])
    ]
    return encode_pairs(made, tiny.tokenizer(), ChatFormat(), LENGTH)[0]


def objective(decoder: Decoder, rows: int = 2, **settings: float) -> DpoObjective:
    reference = reference_logprobs(decoder, pairs(), LENGTH, PAD)
    return DpoObjective(pairs(), *reference, "print", LENGTH, rows, PAD, **settings)  # type: ignore[arg-type]


def logprob_by_loop(decoder: Decoder, example: Encoded) -> Tensor:
    """Token by token, each from a forward pass over what stands before it."""
    total = torch.zeros((), dtype=torch.float64)
    for place, (token, learnt) in enumerate(zip(example.ids, example.learnt, strict=True)):
        if learnt:
            logits = decoder(torch.tensor([example.ids[:place]]))[0, -1].double()
            total = total + torch.log_softmax(logits, -1)[token]
    return total


# ---- the equation


def test_the_loss_is_equation_seven_with_its_gradient() -> None:
    """-log(1 / (1 + exp(-beta h))) and d/dh = -beta (1 - sigmoid(beta h)), for margins of every size."""
    beta = 0.3
    chosen = torch.tensor([-3.0, -40.0, -1.0, -900.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-3.5, -20.0, -1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = (
        torch.tensor([-2.0, -30.0, -1.0, -10.0], dtype=torch.float64),
        torch.tensor([-9.0, -31.0, -1.0, -9.0], dtype=torch.float64),
    )
    losses = dpo_loss(chosen, rejected, *reference, beta)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    assert rejected.grad is not None
    for i in range(4):
        ratio = (chosen[i] - reference[0][i]) - (rejected[i] - reference[1][i])
        h = float(ratio.detach())
        expected = beta * -h if beta * h < -30 else math.log1p(math.exp(-beta * h))
        slope = -beta / (1 + math.exp(beta * h))
        assert losses[i].item() == pytest.approx(expected, rel=1e-12)
        assert chosen.grad[i].item() == pytest.approx(slope, rel=1e-12)
        assert rejected.grad[i].item() == pytest.approx(-slope, rel=1e-12)


def test_the_objective_is_the_equation_and_so_is_its_gradient() -> None:
    """Through the whole network: the policy has moved away from the reference."""
    reference, policy = tiny.decoder(0), tiny.decoder(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)), alpha=0.01)
    made = objective(reference, rows=4, beta=0.2)
    loss = made.loss(policy, made.batches(0)[0])
    loss.backward()  # type: ignore[no-untyped-call]
    found = {
        name: parameter.grad.clone() for name, parameter in policy.named_parameters() if parameter.grad is not None
    }
    policy.zero_grad()

    expected = torch.zeros((), dtype=torch.float64)
    for pair in pairs():
        ratios = [
            logprob_by_loop(policy, side) - logprob_by_loop(reference, side).detach()
            for side in (pair.chosen, pair.rejected)
        ]
        expected = expected - torch.log(1 / (1 + torch.exp(-0.2 * (ratios[0] - ratios[1]))))
    expected.backward()  # type: ignore[no-untyped-call]
    assert abs(loss.item() - 4 * math.log(2)) > 0.05
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(
            found[name], parameter.grad, rtol=1e-3, atol=1e-3 * float(parameter.grad.abs().max())
        )


@pytest.mark.parametrize(("kernels", "tolerance"), [(FLOAT32, 1e-5), (BFLOAT16, 0.03)])
def test_the_first_loss_is_ln_2(kernels: Kernels, tolerance: float) -> None:
    """Policy and reference are the same at first; in bf16 rows in other company differ in their last bits."""
    decoder = use(tiny.decoder(), kernels)
    made = objective(decoder, rows=2, beta=0.1)
    for step in range(2):
        batch = made.batches(step)[0]
        assert made.loss(decoder, batch).item() / batch.weight == pytest.approx(math.log(2), abs=tolerance)


def test_the_chosen_weight_adds_its_likelihood_a_token() -> None:
    decoder = tiny.decoder()
    plain, weighted = objective(decoder, rows=4), objective(decoder, rows=4, chosen_weight=0.5)
    extra = torch.stack([-logprob_by_loop(decoder, pair.chosen) / sum(pair.chosen.learnt) for pair in pairs()]).sum()
    found = weighted.loss(decoder, weighted.batches(0)[0]) - plain.loss(decoder, plain.batches(0)[0])
    assert found.item() == pytest.approx(0.5 * extra.item(), rel=1e-4)


# ---- log-probabilities of answers


@pytest.mark.parametrize(("kernels", "tolerance"), [(FLOAT32, 1e-4), (BFLOAT16, 0.03)])
def test_answer_logprobs_are_those_of_a_loop_over_tokens(kernels: Kernels, tolerance: float) -> None:
    sides = [side for pair in pairs() for side in (pair.chosen, pair.rejected)]
    found = answer_logprobs(use(tiny.decoder(), kernels), *pad_rows(sides, LENGTH, PAD))
    expected = torch.stack([logprob_by_loop(tiny.decoder(), side) for side in sides])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_padding_and_company_have_no_influence() -> None:
    decoder, sides = tiny.decoder(), [pair.chosen for pair in pairs()]
    together = answer_logprobs(decoder, *pad_rows(sides, LENGTH, PAD))
    longer = answer_logprobs(decoder, *pad_rows(sides, LENGTH + 16, pad=3))
    alone = torch.cat([answer_logprobs(decoder, *pad_rows([side], len(side.ids), PAD)) for side in sides])
    torch.testing.assert_close(longer, together)
    torch.testing.assert_close(alone, together)


def test_only_marked_tokens_count() -> None:
    decoder, side = tiny.decoder(), pairs(1)[0].chosen
    nothing = Encoded(side.ids, [False] * len(side.ids))
    last = Encoded(side.ids, [place == len(side.ids) - 1 for place in range(len(side.ids))])
    found = answer_logprobs(decoder, *pad_rows([nothing, last], LENGTH, PAD))
    assert found[0].item() == 0
    assert found[1].item() == pytest.approx(logprob_by_loop(decoder, last).item(), rel=1e-4)


def test_the_reference_is_the_decoders_own_in_the_order_of_the_pairs() -> None:
    decoder = tiny.decoder()
    for rows in (1, 3, 8):
        chosen, rejected = reference_logprobs(decoder, pairs(), LENGTH, PAD, rows)
        for index, pair in enumerate(pairs()):
            assert chosen[index].item() == pytest.approx(logprob_by_loop(decoder, pair.chosen).item(), rel=1e-4)
            assert rejected[index].item() == pytest.approx(logprob_by_loop(decoder, pair.rejected).item(), rel=1e-4)
    assert not chosen.requires_grad


# ---- batches


def test_a_batch_holds_chosen_rows_then_rejected_ones_with_their_references() -> None:
    made = objective(tiny.decoder(), rows=3)
    batch = made.batches(0)[0]
    tokenizer, ids = tiny.tokenizer(), batch.tensors["ids"]
    assert ids.shape == (6, LENGTH)
    assert (batch.weight, batch.tokens) == (3.0, 6 * LENGTH)
    for row in range(3):
        questions = [tokenizer.decode(ids[at].tolist()).partition("?")[0] for at in (row, row + 3)]
        assert questions[0] == questions[1]
        number = int(questions[0][-1])
        for at, answer in zip((row, row + 3), ANSWERS[number], strict=True):
            assert tokenizer.decode(ids[at][batch.tensors["learnt"][at]].tolist()) == answer + "<|im_end|>"
        assert batch.tensors["reference_chosen"][row] == made.reference_chosen[number]
        assert batch.tensors["reference_rejected"][row] == made.reference_rejected[number]


def test_an_epoch_takes_every_pair_once_and_depends_on_the_step_alone() -> None:
    made = objective(tiny.decoder(), rows=2)

    def taken(step: int) -> list[float]:
        found: list[float] = made.batches(step)[0].tensors["reference_chosen"].tolist()
        return found

    later, first = taken(1), taken(0)
    assert sorted(first + later) == sorted(made.reference_chosen.tolist())
    assert taken(0) == first
    assert {tuple(taken(step)) for step in range(8)} != {tuple(first), tuple(later)}, "another epoch, another order"


def test_training_prefers_the_chosen_answers() -> None:
    decoder = tiny.decoder()
    made = objective(decoder, rows=4, beta=0.5)
    optimiser = torch.optim.SGD(decoder.parameters(), lr=1e-3)
    losses = []
    for step in range(6):
        loss = made.loss(decoder, made.batches(step)[0]) / 4
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    chosen, rejected = reference_logprobs(decoder, pairs(), LENGTH, PAD)
    moved = (chosen - made.reference_chosen) - (rejected - made.reference_rejected)
    assert losses[-1] < losses[0]
    assert moved.mean() > 0
