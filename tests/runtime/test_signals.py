"""Interrupts: the first asks, the second Ctrl-C insists."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from ownlm.runtime.errors import Interrupted
from ownlm.runtime.signals import Interruption, catch_interrupts

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself work otherwise on Windows")


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_sets_the_flag(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with catch_interrupts() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
        assert interruption.exit_code == code
    assert signal.getsignal(number) is before, "the handler of before is back"
    error = interruption.error("Saved at step 3.")
    assert isinstance(error, Interrupted)
    assert (error.exit_code, str(error)) == (code, "Saved at step 3.")


@posix
def test_a_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), catch_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@posix
def test_blocks_nest() -> None:
    with catch_interrupts() as outer:
        with catch_interrupts() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested
        assert not outer.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert outer.requested


def test_another_thread_gets_a_flag_that_stays_down() -> None:
    seen: list[Interruption] = []

    def work() -> None:
        with catch_interrupts() as interruption:
            seen.append(interruption)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [each.requested for each in seen] == [False]
