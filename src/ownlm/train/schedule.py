"""Learning-rate schedules, as a factor of the peak rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then stable, then decay ("wsd", Hu et al. 2024, arXiv 2404.06395), or cosine or linear to `final`.

    `warmup` and `decay` are shares of all steps; `final` is the last factor.
    """

    steps: int
    kind: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup: float = 0.03
    decay: float = 0.5
    final: float = 0.0

    def factor(self, step: int) -> float:
        """The factor at `step`, counted from 0."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return (step + 1) / rise
        if self.kind == "wsd":
            fall = max(1, round(self.decay * self.steps))
            left = min(1.0, (self.steps - step) / fall)
            return self.final + (1 - self.final) * left
        progress = (step - rise) / max(1, self.steps - rise)
        shape = 1 - progress if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.final + (1 - self.final) * shape
