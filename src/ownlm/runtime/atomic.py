"""Writing files so that a crash leaves either the old content or the new, never half of it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownlm.runtime.errors import DiskFull


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turns the system's "no space left on device" into a `DiskFull` that names the folder."""
    try:
        yield
    except OSError as error:
        if not no_room(error):
            raise
        raise disk_full(where) from error


def no_room(error: BaseException) -> bool:
    """Whether an error means that the disk, or one's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def disk_full(where: Path) -> DiskFull:
    """What is said of it."""
    return DiskFull(
        f"The disk that holds {where} is full. Free some space and run the same command again: "
        "everything that was complete is kept."
    )


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write into; at the end it is flushed to the disk and renamed over `path`.

    Raises:
        DiskFull: no space is left; `path` is as it was.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        try:
            yield Path(name)
            with Path(name).open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` so that a crash leaves the old file or the new one.

    Raises:
        DiskFull: no space is left; `path` is as it was.
    """
    with aside(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for one JSON document, indented for people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")
