"""The screen: sentences for people, one JSON line for programs."""

from __future__ import annotations

import io
import json
import sys

import pytest

from ownlm.runtime import progress
from ownlm.runtime.progress import Screen


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def everything(screen: Screen) -> None:
    screen.stage("Corpus")
    screen.say("Read 3 files [1/2] :smile:.")
    screen.detail("one\ntwo")
    screen.table(["name", "size"], [["a", 1200], ["b", 0.123456]])
    screen.warn("careful")
    screen.next("ownlm chat x", "talks")
    screen.result({"files": 3, "name": "größe"})


def test_people_read_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Screen())
    out, err = capsys.readouterr()
    assert "Corpus\nRead 3 files [1/2] :smile:.\n  one\n  two\n" in out
    assert "1,200" in out
    assert "Next: ownlm chat x  (talks)" in out
    assert "{" not in out
    assert "\x1b" not in out, "no colours in a pipe"
    assert err == "Warning: careful\n"


def test_programs_read_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Screen(json_mode=True))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"files": 3, "name": "größe"}
    assert out.count("\n") == 1
    assert "Read 3 files" in err
    assert "Next: " in err


def test_quiet_keeps_warnings_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Screen(json_mode=True, quiet=True))
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == 3
    assert err == "Warning: careful\n"


def test_a_terminal_gets_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    everything(Screen())
    assert "Read 3 files [1/2] :smile:." in out.getvalue(), "text is not markup"
    assert "Next: " in out.getvalue()
    assert "careful" in err.getvalue()


def test_a_bar_in_a_pipe_speaks_seldom(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Screen().bar("training", total=100, unit="steps") as bar:
        for second in range(100):
            clock[0] = float(second)
            bar.update(second, "loss 2.3")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"training: {share} %, loss 2.3" for share in (30, 60, 90)]


def test_a_bar_on_a_terminal_is_drawn_and_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    with screen.bar("training [x]", total=10, unit="steps") as bar:
        bar.update(5, "loss 2.3")
        screen.say("in between")
    screen.say("after")
    assert "training [x]" in err.getvalue()
    assert "in between" in err.getvalue(), "goes above the bar on the same terminal"
    assert out.getvalue().strip() == "after"


def test_a_file_keeps_its_sentences_while_a_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    screen = Screen()
    with screen.bar("training", total=10):
        screen.say("in between")
        with screen.bar("inner", total=1) as inner:
            inner.update(1)
    assert out.getvalue() == "in between\n"


def test_a_bar_with_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(quiet=True).bar("x", total=0) as bar:
        bar.update(0)
    assert capsys.readouterr() == ("", "")
