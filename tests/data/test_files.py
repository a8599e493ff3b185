"""Walking and decoding: links, loops, binaries, encodings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ownlm.data.document import Skipped
from ownlm.data.files import FileEntry, decode, format_of, kind_of, listed, walk


def names(root: Path) -> tuple[list[str], dict[str, str]]:
    taken, skipped = [], {}
    for entry in walk(root):
        if isinstance(entry, FileEntry):
            taken.append(entry.name)
        else:
            skipped[entry.source] = entry.reason
    return taken, skipped


def test_walk_takes_files_in_order_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.md", "a/b/d.txt", ".git/config", "node_modules/x.js", "__pycache__/b.pyc", ".env"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    taken, skipped = names(tmp_path)
    assert taken == ["b.py", "a/c.md", "a/b/d.txt"]
    assert set(skipped) == {".git/", "node_modules/", ".env"}


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_walk_follows_no_links_so_loops_and_the_outside_are_harmless(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("outside")
    (inside / "a.txt").write_text("a")
    (inside / "deep" / "loop").symlink_to(inside, target_is_directory=True)
    (inside / "secret.txt").symlink_to(tmp_path / "secret.txt")
    taken, skipped = names(inside)
    assert taken == ["a.txt"]
    assert skipped == dict.fromkeys(("deep/loop", "secret.txt"), "a link; links are not followed")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_walk_does_not_open_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert names(tmp_path) == ([], {"pipe.txt": "not a regular file"})


def test_listed_refuses_names_that_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.py").write_text("x")
    (tmp_path / "root" / "in.py").write_text("x")
    wanted = ("../outside.py", "/etc/passwd", "in.py", "missing.py", ".hidden/x.py")
    found = list(listed(tmp_path / "root", wanted))
    assert [entry.name for entry in found if isinstance(entry, FileEntry)] == ["in.py"]
    reasons = [entry.reason for entry in found if isinstance(entry, Skipped)]
    assert reasons[:2] == ["lies outside of its folder"] * 2
    assert "cannot be read" in reasons[2]
    assert reasons[3] == "hidden file"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"plain", "plain"),
        ("grün".encode(), "grün"),
        (b"\xef\xbb\xbfmark", "mark"),
        ("zwölf".encode("utf-16"), "zwölf"),
        ("zwölf".encode("utf-32"), "zwölf"),
        ("# -*- coding: latin-1 -*-\nü".encode("latin-1"), "# -*- coding: latin-1 -*-\nü"),
        ("#!/bin/x\n# vim: fileencoding=cp1252\n€".encode("cp1252"), "#!/bin/x\n# vim: fileencoding=cp1252\n€"),
    ],
)
def test_decode(content: bytes, text: str) -> None:
    assert decode(content) == (text, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\x00\x01", "binary"),
        (b"gr\xfcn", "not UTF-8 (0xfc at byte 2)"),
        (b"# coding: zlib\n\xff", "not UTF-8"),
        (b"# coding: latin-99\n\xff", "nor latin-99"),
        (b"\xff\xfea", "UTF-16"),
    ],
)
def test_decode_guesses_nothing(content: bytes, reason: str) -> None:
    text, why = decode(content)
    assert text is None
    assert reason in why


def test_kind_and_format() -> None:
    files = ("a/b.py", "README", "notes.MD", "x.png", "Makefile", ".gitignore", "LICENSE")
    assert [kind_of(name) for name in files] == ["code", "prose", "prose", None, "code", None, None]
    assert [format_of(name) for name in ("a.b/c.PY", "a.b/c", ".hidden")] == ["py", "", ""]
