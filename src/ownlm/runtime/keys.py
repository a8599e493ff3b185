"""Single keys from the terminal, without Enter, while work goes on."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]?|O.?|.?)")
"""What arrow and function keys send, and letters with Alt: no keys of ours."""


class Keys:
    """Keys that nobody presses: where there is no terminal. Its subclasses read one."""

    active = False

    def read(self) -> str:
        """The keys pressed since the last call; never waits."""
        return ""


@contextmanager
def pressed_keys(stream: TextIO | None = None) -> Iterator[Keys]:
    """While the block runs, keys are not shown and need no Enter; Ctrl-C and Ctrl-Z work as ever.

    The terminal is as before afterwards, also when the process is stopped (Ctrl-Z) or ended by a signal. Where
    `stream` (standard input) is no terminal, or this process is in its background, there are no keys.
    """
    stream = stream or sys.stdin
    try:
        descriptor = stream.fileno() if stream is not None and stream.isatty() else None
    except (OSError, ValueError):  # closed, or not a real file
        descriptor = None
    if descriptor is None:
        yield Keys()
    elif sys.platform == "win32":
        yield _WindowsKeys()
    else:
        keys = _TerminalKeys(descriptor)
        with _giving_back(keys):
            try:
                keys.take()
                yield keys
            finally:
                keys.give_back()


if sys.platform == "win32":
    import msvcrt

    class _WindowsKeys(Keys):
        """The console's keys."""

        active = True

        def read(self) -> str:
            found = ""
            while msvcrt.kbhit():
                key = msvcrt.getwch()
                if key == "\x03":  # while a key is fetched the console does not turn Ctrl-C into a signal
                    signal.raise_signal(signal.SIGINT)
                elif key in "\x00\xe0":
                    msvcrt.getwch()  # the second half of an arrow or function key
                else:
                    found += key
            return found

else:
    import select
    import termios

    class _TerminalKeys(Keys):
        """Keys of a POSIX terminal.

        A process in the background must neither read it nor change its modes (the system would stop the process), and a
        shell that continues a process leaves the modes to it: both are looked at before every reading.
        """

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._before: list[object] | None = None

        @property
        def active(self) -> bool:  # type: ignore[override]
            """Whether keys arrive now."""
            return self._before is not None and self._in_front()

        def take(self) -> None:
            """Asks for single keys that are not shown; what was typed before is forgotten."""
            try:
                if not self._in_front():
                    return
                modes = termios.tcgetattr(self._descriptor)
                if not modes[3] & termios.ICANON:
                    return
                if self._before is None:
                    self._before = list(modes)
                modes[3] &= ~(termios.ICANON | termios.ECHO)
                modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
                termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, modes)
            except termios.error:  # the terminal has been closed
                return

        def give_back(self) -> None:
            """Sets the modes of before, unless the terminal is somebody else's at the moment."""
            if self._before is None or not self._in_front():
                return
            try:
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
            except termios.error:
                return

        def read(self) -> str:
            self.take()
            found = b""
            try:
                while self.active and select.select([self._descriptor], [], [], 0)[0]:
                    piece = os.read(self._descriptor, 1024)
                    if not piece:
                        break
                    found += piece
            except OSError:
                return ""
            return _SEQUENCE.sub("", found.decode("utf-8", "ignore"))

        def _in_front(self) -> bool:
            """Whether this process is the one that the terminal belongs to."""
            try:
                return os.tcgetpgrp(self._descriptor) == os.getpgrp()
            except OSError:  # it is not this session's terminal
                return False

    @contextmanager
    def _giving_back(keys: _TerminalKeys) -> Iterator[None]:
        """Gives the terminal back before a signal that nobody handles stops or ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        process = os.getpid()

        def handler(number: int, frame: FrameType | None) -> None:
            own = os.getpid() == process  # a forked child has this handler too
            if own:
                keys.give_back()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            signal.signal(number, handler)  # Ctrl-Z: the process goes on here when it is continued
            if own:
                keys.take()

        numbers = (signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
        for number in mine:
            signal.signal(number, handler)
        try:
            yield
        finally:
            for number in mine:
                if signal.getsignal(number) is handler:
                    signal.signal(number, signal.SIG_DFL)
