"""What was asked of a run while it trained, written down before it takes effect, so that a resumed run agrees."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ownlm.runtime import atomic
from ownlm.train.control import Finish, Wish
from ownlm.train.schedule import FINISHING, Schedule

TURNS = "turns.jsonl"


@dataclass(frozen=True)
class Change:
    """At `step` the run is told to finish within `fall` steps (`more` None), or to make `more` steps than before it."""

    step: int
    more: int | None = None
    fall: int | None = None

    @classmethod
    def of(cls, wish: Wish, step: int, seconds: float, pace: float) -> Change:
        """A wish after `step` steps and `seconds`, as steps that take `pace` seconds now and may not when resumed.

        Finishing takes a tenth of the steps, and where steps have become slower a tenth of the time.
        """
        pace = max(pace, 1e-9)
        if isinstance(wish, Finish):
            return cls(step, fall=max(1, min(int(FINISHING * step), round(FINISHING * seconds / pace))))
        return cls(step, max(1, math.ceil(wish.seconds / pace)))

    def apply(self, schedule: Schedule) -> Schedule:
        """The schedule from `step` on."""
        if self.more is not None:
            return schedule.extended(self.step, self.more)
        return schedule.finishing(self.step, self.fall)


def read_changes(folder: Path) -> list[Change]:
    """The changes so far, in their order; a last line that was cut off never took effect."""
    path, found = folder / TURNS, []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(Change(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return found


def write_changes(folder: Path, changes: Sequence[Change]) -> None:
    """Replaces the file; it is on the disk when this returns."""
    atomic.write_text(folder / TURNS, "".join(json.dumps(asdict(change)) + "\n" for change in changes))
