"""Files of JSON lines that somebody else is still writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class JsonLines:
    """Reads what came since the last time; a last line without its end is left for the next time.

    `path` may be changed while the content stays (a finished build is renamed). A file that has become shorter (a
    resumed run forgets what came after its checkpoint) is read anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._offset = 0

    def refresh(self) -> bool:
        """Whether there was something new."""
        try:
            size = self.path.stat().st_size
            if size == self._offset:
                return False
            if size < self._offset:
                self._offset, self.rows = 0, []
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return False
        end = content.rfind(b"\n") + 1
        self._offset += end
        new = [row for line in content[:end].splitlines() if (row := _row(line)) is not None]
        self.rows += new
        return bool(new)


def read_json(path: Path) -> Any:
    """The content of a file, or None where it is missing or no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
