"""What may be asked of a run that goes on, what that would come to, and what was asked of it already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownlm.render.html import duration
from ownlm.train.control import EXTRA_SECONDS, Finish, More, Wish, listens, waiting
from ownlm.train.schedule import FINISHING
from ownlm.train.turns import Change, read_changes

EXTRA = f"{EXTRA_SECONDS / 60:g} minutes"


@dataclass(frozen=True)
class Steering:
    """A run that listens in `folder`: `changes` took effect in this order, `asked` is not taken up yet."""

    folder: Path
    changes: tuple[Change, ...] = ()
    asked: tuple[Wish, ...] = ()

    @property
    def finishing(self) -> bool:
        """Whether to finish is the last thing that it was told, or is asked of it now."""
        last = self.changes[-1:]
        return Finish() in self.asked or bool(last and last[0].more is None)


@dataclass(frozen=True)
class Outlook:
    """What each wish would come to now; an empty sentence where a wish makes no sense."""

    finish: str
    more: str


def read_steering(state: Path) -> Steering | None:
    """What was asked of the run whose state this is; None where no run listens."""
    if not listens(state):
        return None
    try:
        changes = tuple(read_changes(state))
    except (OSError, ValueError):  # the run has just been completed, and its state removed
        changes = ()
    return Steering(state, changes, tuple(waiting(state)))


def outlook(step: int, steps: int, elapsed: float) -> Outlook:
    """What the wishes would do to a run that has made `step` of `steps` in `elapsed` seconds."""
    if step < 1 or elapsed <= 0:
        return Outlook("", "")
    pace, left = elapsed / step, steps - step
    fall = max(1, int(FINISHING * step))
    finish = ""
    if fall < left:
        finish = (
            f"Finish now: the learning rate falls from here on, and a complete model comes out in about "
            f"{duration(fall * pace)}, a tenth of the time spent, instead of {duration(left * pace)}. "
            f"{left - fall:,} planned steps are left out; the model will be weaker than planned."
        )
    more = max(1, round(EXTRA_SECONDS / pace))
    return Outlook(
        finish,
        f"+{EXTRA}: about {more:,} more steps at the present learning rate, then it falls as planned; the run ends in "
        f"about {duration(left * pace + EXTRA_SECONDS)}.",
    )


def told(steering: Steering, step: int, steps: int, elapsed: float) -> list[str]:
    """What was asked of the run, the latest first; `step`, `steps` and `elapsed` are its last metrics'."""
    sentences = [_asked(wish) for wish in reversed(steering.asked)]
    for at, change in reversed(list(enumerate(steering.changes))):
        if change.more is not None:
            sentences.append(f"Made longer at step {change.step:,}: {change.more:,} steps more.")
        elif at == len(steering.changes) - 1 and step > change.step:
            left = duration((steps - step) * elapsed / step)
            sentences.append(f"Finishing since step {change.step:,}: complete at step {steps:,}, in about {left}.")
        else:
            sentences.append(f"Told to finish at step {change.step:,}.")
    return sentences


def _asked(wish: Wish) -> str:
    what = f"go on for {duration(wish.seconds)} longer" if isinstance(wish, More) else "finish"
    return f"Asked to {what}; the run takes it up before its next step."
