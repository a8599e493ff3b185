import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ownlm.model.cross_entropy import CHUNK, linear_cross_entropy, softcapped, softmax_gradient


def inputs(count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 12, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(37, 12, generator=generator).requires_grad_()
    targets = torch.randint(37, (count,), generator=generator)
    weights = torch.rand(count, generator=generator)
    weights[::3] = 0
    return hidden, head, targets, weights


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, tensors))


@pytest.mark.parametrize("count", [1, 50, CHUNK, CHUNK + 1, 2 * CHUNK + 77])
def test_value_and_gradients_equal_torch(count: int) -> None:
    hidden, head, targets, weights = inputs(count)
    loss = linear_cross_entropy(hidden, head, targets, weights)
    expected = (functional.cross_entropy(hidden @ head.T, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    # As the training loop does it: divided by the weight, so the incoming gradient is not 1.
    for found, wanted in zip(gradients(loss / 7, hidden, head), gradients(expected / 7, hidden, head), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_tokens_without_weight_teach_nothing() -> None:
    hidden, head, targets, weights = inputs(90)
    d_hidden, d_head = gradients(linear_cross_entropy(hidden, head, targets, weights), hidden, head)
    assert not d_hidden[weights == 0].any() and d_hidden[weights > 0].any(1).all()
    other = torch.where(weights == 0, (targets + 1) % 37, targets)
    loss = linear_cross_entropy(hidden, head, other, weights)
    torch.testing.assert_close(loss, linear_cross_entropy(hidden, head, targets, weights))
    torch.testing.assert_close(gradients(loss, head)[0], d_head)


def test_bfloat16_hidden_states_with_a_float32_head() -> None:
    hidden, head, targets, weights = inputs(1500, torch.bfloat16)
    loss = linear_cross_entropy(hidden, head, targets, weights)
    wide = hidden.detach().float().requires_grad_()
    expected = (functional.cross_entropy(wide @ head.T, targets, reduction="none") * weights).sum()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=0.01)
    d_hidden, d_head = gradients(loss, hidden, head)
    assert d_hidden.dtype == torch.bfloat16 and d_head.dtype == torch.float32
    for found, wanted in zip((d_hidden, d_head), gradients(expected, wide, head), strict=True):
        assert float((found.float() - wanted).norm() / wanted.norm()) < 0.02


def test_a_frozen_head_costs_no_gradient() -> None:
    hidden, head = torch.randn(10, 8, requires_grad=True), torch.randn(20, 8)
    targets, weights = torch.arange(10), torch.ones(10)
    loss = linear_cross_entropy(hidden, head, targets, weights)
    kept = loss.grad_fn.saved_tensors  # type: ignore[union-attr]
    assert kept[1] is None and kept[0].shape == hidden.shape
    loss.backward()  # type: ignore[no-untyped-call]
    found, hidden.grad = hidden.grad, None
    functional.cross_entropy(hidden @ head.T, targets, reduction="sum").backward()
    torch.testing.assert_close(found, hidden.grad)


@pytest.mark.parametrize("cap", [None, 5.0])
def test_z_loss_changes_the_gradient_and_not_the_value(cap: float | None) -> None:
    hidden, head, targets, weights = inputs(CHUNK + 9)
    kernel = softmax_gradient if cap is None else softcapped(softmax_gradient, cap)
    loss = linear_cross_entropy(hidden, head, targets, weights, kernel, 0.01)
    logits = hidden @ head.T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    entropy = (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()
    expected = entropy + 0.01 * (logits.logsumexp(-1).square() * weights).sum()
    torch.testing.assert_close(loss, entropy, rtol=1e-5, atol=1e-4)
    for found, wanted in zip(gradients(loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_draws_from_a_distribution_as_targets() -> None:
    hidden, head, _, weights = inputs(CHUNK + 9)
    draws = torch.randint(37, (CHUNK + 9, 6), generator=torch.Generator().manual_seed(1))
    draws[0] = draws[0, 0]
    loss = linear_cross_entropy(hidden, head, draws, weights)
    wanted = torch.zeros(CHUNK + 9, 37).scatter_add(1, draws, torch.full(draws.shape, 1 / 6))
    expected = (functional.cross_entropy(hidden @ head.T, wanted, reduction="none") * weights).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    for found, right in zip(gradients(loss, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    one = linear_cross_entropy(hidden, head, draws[:, :1], weights)
    torch.testing.assert_close(one, linear_cross_entropy(hidden, head, draws[:, 0], weights))
