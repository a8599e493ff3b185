"""Cross-entropy straight from the last hidden states, a chunk of tokens at a time: no full logits tensor exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 1024
"""Tokens a chunk: with a vocabulary of 4,096 its logits stay inside a CPU's cache."""


SoftmaxGradient = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def softmax_gradient(logits: Tensor, targets: Tensor, weights: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
    """The weighted loss of logits `(tokens, vocabulary)`, a scalar, and its gradient in their precision; inside fp32.

    The gradient of cross-entropy is softmax minus one-hot, so both come out of one pass. Elementwise operations and
    reductions only: a compiler makes one loop of them. See `linear_cross_entropy` for the other arguments.
    """
    wide = logits.float()
    highest = wide.amax(-1, keepdim=True)
    exponentials = (wide - highest).exp()
    total = exponentials.sum(-1, keepdim=True)
    weight = weights.unsqueeze(1)
    logsumexp = total.log() + highest
    index = targets.unsqueeze(1) if targets.ndim == 1 else targets
    loss = ((logsumexp - wide.gather(1, index).mean(-1, keepdim=True)) * weight).sum()
    if targets.ndim == 1:
        hot = (torch.arange(logits.shape[1], device=logits.device) == index).float()
    else:
        share = torch.full_like(index, 1 / index.shape[1], dtype=torch.float32)
        hot = torch.zeros_like(wide).scatter_add(1, index, share)
    probabilities = exponentials / total
    if z_loss:
        probabilities = probabilities * (1 + 2 * z_loss * logsumexp)
    return loss, ((probabilities - hot) * weight).to(logits.dtype)


def softcapped(kernel: SoftmaxGradient, cap: float) -> SoftmaxGradient:
    """`kernel` on logits bounded by `cap * tanh(logits / cap)` (Gemma 2): by the chain rule its gradient shrinks."""

    def capped(logits: Tensor, targets: Tensor, weights: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
        bounded = torch.tanh(logits.float() / cap)
        loss, gradient = kernel(cap * bounded, targets, weights, z_loss)
        return loss, (gradient * (1 - bounded.square())).to(logits.dtype)

    return capped


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes loss and gradients a chunk at a time, forward and backward in one pass; no gradient of a frozen head."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, kernel: SoftmaxGradient, z_loss: float
    ) -> Tensor:
        narrow = head.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, hidden.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            loss, gradient = kernel(functional.linear(hidden[part], narrow), targets[part], weights[part], z_loss)
            total += loss
            torch.mm(gradient, narrow, out=d_hidden[part])
            if d_head is not None:
                d_head += torch.mm(gradient.T, hidden[part])
        ctx.save_for_backward(d_hidden, None if d_head is None else d_head.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), None if d_head is None else d_head * grad, None, None, None, None


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor,
    kernel: SoftmaxGradient = softmax_gradient,
    z_loss: float = 0.0,
) -> Tensor:
    """The weighted sum of `-log softmax(hidden head^T)[target]`, in nats, fp32 scalar.

    `hidden` `(tokens, width)`, `head` `(vocabulary, width)`, `targets` `(tokens,)`, `weights` `(tokens,)` fp32 (0 where
    a token is not to be learnt). Equal to `cross_entropy(logits, targets)` summed with those weights. With `targets`
    `(tokens, draws)` the target is the distribution that the draws make: the mean over them. `kernel` may be a compiled
    `softmax_gradient`.

    `z_loss` keeps `log Z`, the log-sum of the exponentials, near 0: the gradient is that of
    `cross-entropy + z_loss (log Z)^2` (Chowdhery et al. 2022, arXiv 2204.02311, section 5); the value stays that of the
    cross-entropy, so that it can be compared.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, head, targets, weights, kernel, z_loss)  # type: ignore[no-untyped-call]
    return loss
