"""Single keys, in real terminals: a process of its own on a pseudo-terminal each."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ownlm.runtime.keys import pressed_keys

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")

if sys.platform != "win32":
    import pty
    import termios

PATIENCE = 20.0
PROGRAM = """
import os, signal, sys, time
from ownlm.runtime.keys import pressed_keys
until = time.monotonic() + 30
with pressed_keys() as keys:
    print("ready", keys.active, flush=True)
    while time.monotonic() < until:
        for key in keys.read():
            print(f"<{key}>", flush=True)
            if key == "q":
                sys.exit(0)
            if key == "e":
                raise ValueError("as asked")
        time.sleep(0.005)
"""


@dataclass
class Terminal:
    """A process on its own terminal, seen from the other end."""

    pid: int
    descriptor: int
    seen: str = ""

    def wait(self, text: str) -> None:
        """Reads until `text` has been shown."""
        until = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.descriptor, 4096).decode()
                except OSError:  # the process has ended
                    assert text in self.seen, self.seen

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def single(self) -> bool:
        """Whether the terminal gives single keys and shows none."""
        modes = termios.tcgetattr(self.descriptor)[3]
        wanted = termios.ICANON | termios.ECHO
        assert modes & wanted in (0, wanted)
        assert modes & termios.ISIG, "Ctrl-C would be a mere key"
        return not modes & wanted

    def becomes(self, single: bool) -> None:
        until = time.monotonic() + PATIENCE
        while self.single() != single:
            assert time.monotonic() < until
            time.sleep(0.01)

    def end(self) -> int:
        """The exit status, once the process has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def terminal(program: str = PROGRAM) -> Iterator[Terminal]:
    # The other end stays open here, so that the modes can be looked at after the process has ended.
    master, slave = pty.openpty()
    # Where the tests run in the background, or under nohup, signals are ignored, and children would inherit that.
    begin = (
        "import fcntl, signal, sys, termios\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", begin + program],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    try:
        yield Terminal(process.pid, master)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def test_keys_come_without_enter_and_are_not_shown() -> None:
    with terminal() as found:
        found.wait("ready True")
        assert found.single()
        found.type("f+")
        found.wait("<+>")
        found.type("\x1b[A\x1bf\x1bOPx")  # up, Alt-F, F1
        found.wait("<x>")
        found.type("q")
        assert found.end() == 0
        assert not found.single()
        found.wait("<q>")
        assert found.seen.split()[2:] == ["<f>", "<+>", "<x>", "<q>"]


def test_what_was_typed_before_is_no_key() -> None:
    with terminal("import time; print('wait', flush=True); time.sleep(0.3)\n" + PROGRAM) as found:
        found.wait("wait")
        found.type("f")
        found.wait("ready True")
        found.type("q")
        found.wait("<q>")
        assert "<f>" not in found.seen


def test_ctrl_c_works_on() -> None:
    with terminal() as found:
        found.wait("ready True")
        found.type("\x03")
        found.wait("KeyboardInterrupt")
        assert found.end() in (-signal.SIGINT, 130)
        assert not found.single()


def test_an_error_gives_the_terminal_back() -> None:
    with terminal() as found:
        found.wait("ready True")
        found.type("e")
        found.wait("as asked")
        assert found.end() == 1
        assert not found.single()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_the_process_gives_the_terminal_back(number: signal.Signals) -> None:
    with terminal() as found:
        found.wait("ready True")
        os.kill(found.pid, number)
        assert found.end() == -number
        assert not found.single()


def test_a_handler_of_the_program_s_own_stays() -> None:
    own = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('own', flush=True))\n"
    with terminal(own + PROGRAM) as found:
        found.wait("ready True")
        os.kill(found.pid, signal.SIGTERM)
        found.wait("own")
        assert found.single()


def test_ctrl_z_gives_the_terminal_back_and_continuing_takes_it_again() -> None:
    parent = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-c', {PROGRAM!r}], process_group=0)\n"
        "os.tcsetpgrp(0, child.pid)\n"
        "os.waitpid(child.pid, os.WUNTRACED)\n"
        "os.tcsetpgrp(0, os.getpgrp())\n"
        "print('stopped', flush=True)\n"
        "input()\n"
        "os.kill(child.pid, signal.SIGCONT)\n"  # bg
        "time.sleep(0.2)\n"
        "print('typed', input(), flush=True)\n"
        "os.tcsetpgrp(0, child.pid)\n"  # fg
        "sys.exit(child.wait())\n"
    )
    with terminal(parent) as found:
        found.wait("ready")
        found.becomes(True)
        found.type("a")
        found.wait("<a>")
        found.type("\x1a")
        found.wait("stopped")
        assert not found.single()
        found.type("\n")
        time.sleep(0.3)
        assert not found.single(), "a process in the background leaves the terminal alone"
        found.type("f words\n")
        found.wait("typed f words")
        found.becomes(True)
        found.type("bq")
        found.wait("<b>")
        assert found.end() == 0
        assert "<f>" not in found.seen
        assert not found.single()


def test_there_are_no_keys_where_there_is_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("f")
    with (tmp_path / "file").open() as file, pressed_keys(file) as keys:
        assert (keys.active, keys.read()) == (False, "")
    closed = (tmp_path / "file").open()
    closed.close()
    for stream in (io.StringIO("f"), closed):
        with pressed_keys(stream) as keys:
            assert (keys.active, keys.read()) == (False, "")


def test_a_terminal_of_another_session_is_left_alone() -> None:
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, closefd=False) as stream, pressed_keys(stream) as keys:
            os.write(master, b"f\n")
            assert (keys.active, keys.read()) == (False, "")
            assert termios.tcgetattr(master)[3] & termios.ICANON
    finally:
        os.close(master)
        os.close(slave)


def test_signal_handlers_are_as_before() -> None:
    program = (
        "import signal, sys\nfrom ownlm.runtime.keys import pressed_keys\n"
        "numbers = (signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)\n"
        "before = [signal.getsignal(n) for n in numbers]\n"
        "with pressed_keys() as keys:\n    assert keys.active\n"
        "print('same' if before == [signal.getsignal(n) for n in numbers] else 'differ', flush=True)\n"
    )
    with terminal(program) as found:
        found.wait("same")
