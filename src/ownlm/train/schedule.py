"""Learning-rate schedules, as a factor of the peak rate, which may be cut short or lengthened on the way."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

FINISHING = 0.1
"""The share of the steps done within which a run that is told to finish comes to its end."""


@dataclass(frozen=True)
class Turn:
    """From `step` on the factor stays at `factor` until the last `fall` steps, in which it falls to the final one.

    Until then it is that of `before`.
    """

    step: int
    factor: float
    fall: int
    before: Schedule


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then stable, then decay ("wsd", Hu et al. 2024, arXiv 2404.06395), or cosine or linear to `final`.

    `warmup` and `decay` are shares of the steps that were planned at first; `final` is the last factor.
    """

    steps: int
    kind: Literal["wsd", "cosine", "linear"] = "wsd"
    warmup: float = 0.03
    decay: float = 0.5
    final: float = 0.0
    turn: Turn | None = None

    def factor(self, step: int) -> float:
        """The factor at `step`, counted from 0."""
        if self.turn is not None:
            if step < self.turn.step:
                return self.turn.before.factor(step)
            return min(self._warm(step), self._fallen(self.turn.factor, self.turn.fall, step))
        rise = self._rise
        if step < rise:
            return self._warm(step)
        if self.kind == "wsd":
            return self._fallen(1.0, self._fall, step)
        progress = (step - rise) / max(1, self.steps - rise)
        shape = 1 - progress if self.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.final + (1 - self.final) * shape

    def finishing(self, step: int, fall: int | None = None) -> Schedule:
        """The same up to `step`, where the fall begins; it takes `fall` steps, or what is left if less.

        None is a tenth of the steps done.
        """
        left = max(1, min(self.steps - step, int(FINISHING * step) if fall is None else fall))
        return self._turned(step, self.factor(step), step + left, left)

    def extended(self, step: int, more: int) -> Schedule:
        """The same up to `step`, and `more` steps longer: the factor is held for longer, then it falls as planned."""
        steps = self.steps + more
        if self.turn is not None:  # without the limit of the warm-up, which goes on
            height, fall = self._fallen(self.turn.factor, self.turn.fall, step), self.turn.fall
        else:
            height = 1.0 if step < self._rise else self.factor(step)
            fall = self._fall if self.kind == "wsd" else self.steps - max(step, self._rise)
        return self._turned(step, height, steps, max(1, min(fall, steps - step)))

    def _turned(self, step: int, factor: float, steps: int, fall: int) -> Schedule:
        return dataclasses.replace(self, steps=steps, turn=Turn(step, factor, fall, self))

    @property
    def _planned(self) -> int:
        return self.steps if self.turn is None else self.turn.before._planned

    @property
    def _rise(self) -> int:
        return max(1, round(self.warmup * self._planned))

    @property
    def _fall(self) -> int:
        return max(1, round(self.decay * self._planned))

    def _warm(self, step: int) -> float:
        return min(1.0, (step + 1) / self._rise)

    def _fallen(self, factor: float, fall: int, step: int) -> float:
        left = min(1.0, (self.steps - step) / fall)
        return self.final + (factor - self.final) * left
