"""Finds a browser of the Chrome family: for `ownlm doctor`, screenshots and the tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_PROGRAMS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
)  # fmt: skip
_MAC = (
    "Google Chrome.app/Contents/MacOS/Google Chrome",
    "Chromium.app/Contents/MacOS/Chromium",
    "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
_WINDOWS = ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe")


def find_browser() -> Path | None:
    """The program of an installed Chrome, Chromium or Edge; None where there is none."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    roots = [os.environ.get(name, "") for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
    candidates = [Path("/Applications") / each for each in _MAC]
    candidates += [Path(root) / each for root in roots if root for each in _WINDOWS]
    return next((path for path in candidates if path.is_file()), None)
