"""Cross-entropy straight from the last hidden states, a chunk of tokens at a time: no full logits tensor exists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 1024
"""Tokens a chunk: with a vocabulary of 4,096 its logits stay inside a CPU's cache."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes loss and gradients in one pass over the chunks, since softmax minus one-hot is known right away."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        narrow = head.to(hidden.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros_like(head, dtype=torch.float32)
        for start in range(0, hidden.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            logits = functional.linear(hidden[part], narrow).float()
            log_probs = functional.log_softmax(logits, -1)
            index, weight = targets[part].unsqueeze(1), weights[part].unsqueeze(1)
            total -= (log_probs.gather(1, index) * weight).sum()
            gradient = log_probs.exp_()
            gradient.scatter_add_(1, index, torch.full_like(weight, -1.0))
            narrow_gradient = gradient.mul_(weight).to(hidden.dtype)
            torch.mm(narrow_gradient, narrow, out=d_hidden[part])
            d_head += torch.mm(narrow_gradient.T, hidden[part])
        ctx.save_for_backward(d_hidden, d_head.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grad.to(d_hidden.dtype), d_head * grad, None, None


def linear_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of `-log softmax(hidden head^T)[target]`, in nats, fp32 scalar.

    `hidden` `(tokens, width)`, `head` `(vocabulary, width)`, `targets` `(tokens,)`, `weights` `(tokens,)` fp32 (0 where
    a token is not to be learnt). Equal to `cross_entropy(logits, targets)` summed with those weights.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, head, targets, weights)  # type: ignore[no-untyped-call]
    return loss
