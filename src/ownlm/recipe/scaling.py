"""How held-out loss falls with size and text: the law that the planner chooses and forecasts by."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScalingLaw:
    """`bits per byte = floor + a (parameters / 1e6)^-alpha + b (megabytes read / 1)^-beta`.

    The form of Hoffmann et al. 2022 (arXiv 2203.15556, equation 2), in bits per byte and megabytes so that it holds
    across vocabularies. `parameters` are those of the blocks and the head, `spread` the relative half-width of the
    interval that is forecast.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    spread: float

    def bits_per_byte(self, parameters: float, read: float, distinct: float) -> float:
        """The forecast after `read` bytes of which `distinct` are different; repeats are worth less and less.

        Repeated text counts as in Muennighoff et al. 2023 (arXiv 2305.16264): a decaying share with R* = 15 epochs.
        """
        epochs = max(0.0, read / distinct - 1.0)
        useful = min(read, distinct) + distinct * 15.0 * (1.0 - math.exp(-epochs / 15.0))
        size, text = math.pow(parameters / 1e6, -self.alpha), math.pow(useful / 1e6, -self.beta)
        return self.floor + self.a * size + self.b * text


PYTHON_SOURCES = ScalingLaw(floor=0.06, a=0.25, alpha=0.30, b=1.61, beta=0.235, spread=0.10)
"""Fitted to the runs in docs/experiments/001-demo-model.md."""
