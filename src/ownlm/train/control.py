"""What one may ask of a run while it trains: to finish now, or to go on for longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Finish:
    """Start the decay now: a usable model comes out within a tenth of the time spent."""


@dataclass(frozen=True)
class More:
    """Train for this many seconds more than planned."""

    seconds: float


Wish = Finish | More


class Control(Protocol):
    """Where wishes come from."""

    def asked(self) -> list[Wish]:
        """What was asked for since the last call."""
        ...
