"""Which steps must not change the weights: numbers that are none, and losses or gradients far outside what was seen."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Literal

Reason = Literal["non-finite", "spike"]


@dataclass(frozen=True)
class SpikeRule:
    """A step is a spike when its loss lies `deviations` standard deviations, `share` of the mean and `nats` above the
    mean of the last `window` good steps, or its gradient's norm is `gradients` times their median, and above `norm`.

    Nothing is judged before half a window of good steps. `nats` and `norm` keep a model that knows its text by heart,
    whose losses are next to nothing, from seeing spikes in every flicker. After `patience` spikes in a row it is not
    the batches that are odd but the weights that have moved, and only steps can move them back: as long as the loss is
    no worse than the first one, the next step is taken, and what is usual is learnt anew.
    """

    window: int = 64
    deviations: float = 6.0
    share: float = 0.1
    nats: float = 0.1
    gradients: float = 20.0
    norm: float = 2.0
    patience: int = 5


class Watchman:
    """Judges steps one after the other; the same steps give the same judgements, so that a resumed run agrees."""

    def __init__(self, rule: SpikeRule | None) -> None:
        self._rule = rule
        self._losses: deque[float] = deque(maxlen=rule.window if rule else 1)
        self._norms: deque[float] = deque(maxlen=rule.window if rule else 1)
        self._first: float | None = None
        self.in_a_row = 0
        self.skipped = 0

    def judge(self, loss: float, norm: float) -> Reason | None:
        """Why a step with this loss and gradient norm is to be skipped; None for a good one, which is remembered."""
        far = self._far(loss, norm)
        reason = self._reason(loss, norm, far)
        self._remember(loss, norm, reason, far)
        return reason

    def note(self, loss: float, norm: float, reason: Reason | None) -> None:
        """Remembers a step that was judged before."""
        self._remember(loss, norm, reason, reason is None and self._far(loss, norm))

    def _remember(self, loss: float, norm: float, reason: Reason | None, far: bool) -> None:
        if reason is None:
            if far:
                self._losses.clear()
                self._norms.clear()
            self._first = loss if self._first is None else self._first
            self._losses.append(loss)
            self._norms.append(norm)
            self.in_a_row = 0
        else:
            self.in_a_row += 1
            self.skipped += 1

    def _reason(self, loss: float, norm: float, far: bool) -> Reason | None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            return "non-finite"
        if self._rule is None or not far:
            return None
        moved = self.in_a_row >= self._rule.patience and self._first is not None and loss <= self._first
        return None if moved else "spike"

    def _far(self, loss: float, norm: float) -> bool:
        rule = self._rule
        if rule is None or len(self._losses) < rule.window // 2:
            return False
        mean = statistics.fmean(self._losses)
        margin = max(rule.deviations * statistics.pstdev(self._losses), rule.share * abs(mean), rule.nats)
        return loss > mean + margin or norm > max(rule.norm, rule.gradients * statistics.median(self._norms))
