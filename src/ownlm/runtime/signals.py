"""Ctrl-C and SIGTERM: the first asks the work to save and stop, the second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ownlm.runtime.errors import Interrupted

_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass
class Interruption:
    """Whether stopping was asked for, and the exit code that tells the shell why."""

    requested: bool = False
    exit_code: int = 130

    def error(self, message: str) -> Interrupted:
        """What to raise once everything is saved: `raise interruption.error("Saved at step 40. ...")`."""
        return Interrupted(self.exit_code, message)

    def check(self) -> None:
        """For work that is not saved half-way, between its pieces.

        Raises:
            Interrupted: stopping was asked for.
        """
        if self.requested:
            raise self.error("Stopped; all stages before this one are saved. The same command does this one again.")


@contextmanager
def catch_interrupts() -> Iterator[Interruption]:
    """While the block runs, Ctrl-C and SIGTERM (on Windows Ctrl-Break) set `requested` instead of ending the process.

    The work looks at the flag between steps, saves and raises `Interrupted`. A second Ctrl-C raises
    `KeyboardInterrupt` at once. Outside the main thread, where Python delivers no signals, the flag stays False.
    """
    interruption = Interruption()

    def ask(number: int, frame: FrameType | None) -> None:
        if interruption.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.requested = True
        interruption.exit_code = _EXIT_CODES.get(signal.Signals(number), 143)

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, ask) for number in _handled()}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _handled() -> list[signal.Signals]:
    """SIGINT, and what asks a process to end: SIGTERM, or Ctrl-Break on Windows, where SIGTERM cannot be caught."""
    names = ("SIGINT", "SIGBREAK") if hasattr(signal, "SIGBREAK") else ("SIGINT", "SIGTERM")
    return [getattr(signal, name) for name in names]
