"""Muon: momentum whose matrices are made orthogonal before they are added."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ownlm.train.exchange import Exchange, exchange_of, local, placement, rows_like

# Coefficients of the quintic iteration that drives all singular values towards 1 as fast as possible in five steps.
# Amsel et al. 2025, "The Polar Express", arXiv 2505.16932, table for l = 1e-3 with the paper's safety factor.
_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


@torch.no_grad()
def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each of `matrices` `(count, rows, columns)`: `U V^T` of `U S V^T`.

    Polynomials of `X X^T` only, so it is all matmuls; the result's singular values are close to 1, not exact, which
    Muon does not need (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
    """
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.float().square().sum((1, 2), keepdim=True).sqrt() * 1.02 + 1e-7).to(dtype)
    for a, b, c in _POLAR_EXPRESS:
        gram = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


def normalise_neurons(updates: Tensor, seconds: Tensor, beta: float) -> Tensor:
    """NorMuon (Li et al. 2025, arXiv 2510.05491, algorithm 1): each row of an update divided by its running size.

    `updates` `(count, rows, columns)`; `seconds` `(count, rows, 1)`, the running means of the rows' squares, which are
    brought up to date in place. The result has the size (Frobenius norm) that `updates` had, so that one learning rate
    suits both.
    """
    wide = updates.float()
    before = wide.flatten(1).norm(dim=1)[:, None, None]
    seconds.lerp_(wide.square().mean(-1, keepdim=True), 1 - beta)
    scaled = wide / (seconds.sqrt() + 1e-8)
    scaled *= before / (scaled.flatten(1).norm(dim=1)[:, None, None] + 1e-8)
    return scaled.to(updates.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for the matrices of the blocks.

    The step of a matrix `(rows, columns)` is scaled by `sqrt(max(1, rows / columns))`, so that one learning rate suits
    all shapes. Matrices of the same shape are worked on together.

    `neuron_beta` above 0 switches NorMuon on (see `normalise_neurons`). `cautious` decays a weight only where the
    update shrinks it anyway (Chen et al. 2025, arXiv 2510.12402).

    Parameters may be divided among processes (DTensor): the numbers are those of one process.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
        *,
        neuron_beta: float = 0.0,
        cautious: bool = False,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype, self.neuron_beta, self.cautious = dtype, neuron_beta, cautious

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        turn = 0
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault((tuple(parameter.shape), *placement(parameter)), []).append(parameter)
            for ((rows, columns), *_), parameters in alike.items():
                updates = self._updates(parameters, group["momentum"], turn)
                turn += len(parameters)
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    self._decay(local(parameter), update, group["lr"] * group["weight_decay"])
                    local(parameter).add_(update, alpha=-scale)

    def _updates(self, parameters: list[Tensor], momentum: float, turn: int) -> list[Tensor]:
        """What this process holds of the updates of `parameters`, which are alike in shape and in how they are divided.

        Of divided ones each process makes its own share of the whole matrices orthogonal.
        """
        exchange = exchange_of(parameters[0], len(parameters), turn)
        directions = [self._direction(parameter, momentum) for parameter in parameters]
        divided = isinstance(exchange, Exchange)
        # Halves what is sent in bfloat16; `orthogonalise` would round to it anyway.
        wholes = exchange.gather([each.to(self.dtype) for each in directions] if divided else directions)
        updates = orthogonalise(wholes, self.dtype)
        if self.neuron_beta:
            updates = self._normalised(parameters, updates.float(), turn)
        return [update.to(directions[0].dtype) for update in exchange.scatter(updates)]

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's: the gradient drawn towards its running mean, which is brought up to date."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        gradient, mean = local(parameter.grad), local(state["momentum"])
        mean.lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)

    def _normalised(self, parameters: list[Tensor], updates: Tensor, turn: int) -> Tensor:
        seconds = []
        for parameter in parameters:
            if "neurons" not in self.state[parameter]:
                self.state[parameter]["neurons"] = rows_like(parameter, 1, torch.float32)
            seconds.append(self.state[parameter]["neurons"])
        exchange = exchange_of(seconds[0], len(seconds), turn)
        together = exchange.gather([local(second) for second in seconds])
        updates = normalise_neurons(updates, together, self.neuron_beta)
        for second, found in zip(seconds, exchange.scatter(together), strict=True):
            local(second).copy_(found)
        return updates

    def _decay(self, parameter: Tensor, update: Tensor, share: float) -> None:
        if not share:
            return
        if self.cautious:
            parameter.sub_(parameter * (parameter * update > 0), alpha=share)
        else:
            parameter.mul_(1 - share)
