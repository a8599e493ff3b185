"""Atomic writes: the old content or the new, never half of it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from ownlm.runtime import atomic
from ownlm.runtime.errors import DiskFull


def test_writes_make_their_folder_and_leave_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    atomic.write_json(path, {"größe": 1})
    assert json.loads(path.read_text("utf-8")) == {"größe": 1}
    assert [each.name for each in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def no_space(*_: object) -> None:
        raise OSError(number, "no space")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(DiskFull, match="is full"):
        atomic.write_text(path, "new")
    assert path.read_text("utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_an_interruption_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write_text(path, "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(path, "new")
    assert path.read_text("utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(FileExistsError):
        atomic.write_text(tmp_path / "file" / "below", "x")
