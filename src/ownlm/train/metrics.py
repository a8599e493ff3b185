"""The metrics stream: one JSON line a step, exactly one for each step however often the run was cut off."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ownlm.runtime import atomic

METRICS = "metrics.jsonl"
SKIPPED = "skipped.jsonl"
"""The steps that were left out: step, reason, loss, gradient norm and the documents of the batch."""


class JsonLog:
    """A file of JSON lines that survives a full disk: what finds no room is written later."""

    def __init__(self, path: Path, step: int) -> None:
        """Keeps the lines up to `step`: what was done after the checkpoint will be done again."""
        self.path = path
        every = read_rows(path)
        self.rows = [row for row in every if row["step"] <= step]
        self.dropped = len(every) - len(self.rows)
        if path.exists():
            atomic.write_text(path, "".join(map(as_line, self.rows)))
        self._end = path.stat().st_size if path.exists() else 0
        self._waiting = b""

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; a crash of the process loses nothing of it."""
        self._waiting += as_line(row).encode()
        self.flush()

    def flush(self) -> bool:
        """Writes what waits for room; whether everything is written now."""
        if not self._waiting:
            return True
        try:
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.seek(self._end)
                file.truncate()  # half a line from a disk that was full
                file.write(self._waiting)
                file.flush()
        except OSError as error:
            if not atomic.no_room(error):
                raise
            return False
        self._end += len(self._waiting)
        self._waiting = b""
        return True


def as_line(row: dict[str, Any]) -> str:
    """A row as a line of JSON, which knows no NaN and no infinity: such a number is null."""
    found = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(found, allow_nan=False) + "\n"


def number(value: float | None) -> float:
    """A figure of a row that was read: null is not a number."""
    return math.nan if value is None else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines, none where it is not there; one that was cut off is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
