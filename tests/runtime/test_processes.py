"""Whether a process still runs, and which browser there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ownlm.runtime import browser
from ownlm.runtime.processes import is_running


def test_this_process_runs_and_a_finished_one_does_not() -> None:
    assert is_running(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not is_running(process.pid)
    assert not is_running(0)
    assert not is_running(-1)


def test_a_browser_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/there/{name}" if name == "google-chrome" else None)
    assert browser.find_browser() == Path("/there/google-chrome")
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    monkeypatch.setattr(browser, "_MAC", ())
    for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert browser.find_browser() is None
    program = tmp_path / "Microsoft" / "Edge" / "Application" / "msedge.exe"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("PROGRAMFILES", str(tmp_path))
    assert browser.find_browser() == program
