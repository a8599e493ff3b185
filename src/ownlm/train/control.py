"""What one may ask of a run while it trains: to finish now, or to go on for longer."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

FOLDER = "control"
EXTRA_SECONDS = 300.0
"""What one press of `+`, or of the button, adds."""
MOST_SECONDS = 365 * 86400.0
HINT = "Keys while it trains: f finishes now, within a tenth of the time spent; + adds five minutes."


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
        """What was asked for since the last call; never waits."""
        ...


class FileControl:
    """Wishes that other processes leave in `folder/control`, a file each; while that folder exists a run listens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._taken: set[str] = set()

    def asked(self) -> list[Wish]:
        """The wishes in the order in which they were left; their files are removed."""
        wishes = []
        for name in _names(self._folder):
            if name in self._taken:
                continue
            wish = _read(self._folder / name)
            self._taken.add(name)  # a file that cannot be removed is not a new wish each time
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError:
                pass
            if wish is not None:
                wishes.append(wish)
        return wishes


class KeyControl:
    """Wishes from single keys: `f` finishes, `+` adds five minutes; `pressed` gives the keys since its last call."""

    def __init__(self, pressed: Callable[[], str]) -> None:
        self._pressed = pressed

    def asked(self) -> list[Wish]:
        """A wish for each of the two keys, in their order; other keys mean nothing."""
        wishes: dict[str, Wish] = {"f": Finish(), "+": More(EXTRA_SECONDS)}
        return [wishes[key] for key in self._pressed() if key in wishes]


class AnyOf:
    """Several sources as one; `tell` gets a sentence for each wish."""

    def __init__(self, controls: Sequence[Control], tell: Callable[[str], None] | None = None) -> None:
        self._controls, self._tell = tuple(controls), tell

    def asked(self) -> list[Wish]:
        """The wishes of all, source after source."""
        wishes = [wish for control in self._controls for wish in control.asked()]
        if self._tell is not None:
            for wish in wishes:
                self._tell(sentence(wish))
        return wishes


def ask_finish(folder: Path) -> None:
    """Asks the run whose `FileControl` has this folder to finish now.

    Raises:
        OwnLMError: no run listens there.
        DiskFull: there is no room for the file.
    """
    _leave(folder, {"wish": "finish"})


def ask_more(folder: Path, seconds: float = EXTRA_SECONDS) -> None:
    """Asks the run whose `FileControl` has this folder to go on for longer.

    Raises:
        OwnLMError: no run listens there, or `seconds` is not between 0 and a year.
        DiskFull: there is no room for the file.
    """
    if _wish({"wish": "more", "seconds": seconds}) is None:
        raise OwnLMError(f"A run cannot go on for {seconds} seconds more: give a number above 0, a year at most.")
    _leave(folder, {"wish": "more", "seconds": float(seconds)})


def listens(folder: Path) -> bool:
    """Whether a run takes, or before it was cut off took, wishes from this folder."""
    return (folder / FOLDER).is_dir()


def waiting(folder: Path) -> list[Wish]:
    """The wishes that were left in this folder and not yet taken up; nothing is removed."""
    return [wish for name in _names(folder / FOLDER) if (wish := _read(folder / FOLDER / name)) is not None]


def sentence(wish: Wish) -> str:
    """What a wish does, for people."""
    if isinstance(wish, Finish):
        return "Finishing: the learning rate falls from here on, and a usable model comes out."
    return f"Longer: {wish.seconds / 60:.3g} minutes more than planned until here."


def _leave(folder: Path, wish: dict[str, Any]) -> None:
    if not listens(folder):
        raise OwnLMError(f"No run listens in {folder}: it has ended, or it takes no wishes. Look at `ownlm ls`.")
    atomic.write_json(folder / FOLDER / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json", wish)


def _names(folder: Path) -> list[str]:
    """Complete files only: one that is still being written has a hidden name."""
    try:
        found = os.listdir(folder)
    except OSError:  # somebody removed it; a run does not fail for that
        return []
    return sorted(name for name in found if name.endswith(".json") and name[0] != ".")


def _read(path: Path) -> Wish | None:
    try:
        return _wish(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _wish(data: Any) -> Wish | None:
    """A wish from JSON; None for anything else."""
    if not isinstance(data, dict):
        return None
    seconds = data.get("seconds")
    if data.get("wish") == "finish":
        return Finish()
    if data.get("wish") != "more" or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return More(float(seconds)) if 0 < seconds <= MOST_SECONDS else None
