"""Finding the files of a folder and reading them as text: safe with links, loops, binaries and odd encodings."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ownlm.data.document import Skipped

PROSE = "prose"
CODE = "code"

_PROSE_ENDINGS = "md markdown mdx rst txt text adoc asciidoc org tex typ wiki textile pod man srt vtt"
_CODE_ENDINGS = (
    "py pyi pyx js mjs cjs jsx ts tsx vue svelte java kt kts scala groovy clj cljs c h cc cpp cxx hh hpp hxx cu cuh "
    "m mm cs fs vb go rs swift dart rb erb php pl pm lua r jl sh bash zsh fish ps1 bat sql hs ml mli ex exs erl elm "
    "lisp el scm rkt f f90 f95 asm s v sv vhd vhdl zig nim d pas ada cob html htm css scss sass less xml xsl toml yaml "
    "yml ini cfg conf cmake mk gradle tf proto graphql thrift"
)
KIND_BY_ENDING = dict.fromkeys(_PROSE_ENDINGS.split(), PROSE) | dict.fromkeys(_CODE_ENDINGS.split(), CODE)
"""Which endings are read at all, and which slice of the evaluation they belong to."""

KIND_BY_NAME = {
    **dict.fromkeys(("readme", "changes", "changelog", "news", "authors", "contributing", "todo", "notes"), PROSE),
    **dict.fromkeys(("makefile", "dockerfile", "rakefile", "gemfile", "justfile", "jenkinsfile"), CODE),
}
"""The same for files without an ending, by name in lower case."""

LEFT_OUT_FOLDERS = frozenset({
    "node_modules", "bower_components", "venv", "env", "virtualenv", "site-packages", "dist-packages", "build", "dist",
    "target", "__pycache__", "vendor", "third_party", "htmlcov", "workspace",
})  # fmt: skip
"""Folders of things that were installed, built or copied, besides the hidden ones."""

_DERIVED = frozenset({"__pycache__"})
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"\A(?:[^\n]{0,200}\n)?[^\n]{0,100}?coding[:=][ \t]*([-\w.]{1,40})")
_SAFE_CODECS = ("ascii", "utf", "iso", "latin", "cp", "windows", "koi8", "euc", "shift", "sjis", "gb", "big5", "mac")


@dataclass(frozen=True)
class FileEntry:
    """A file that was found: `name` is relative to the source's root, with forward slashes; size in bytes."""

    name: str
    path: Path
    size: int
    modified_ns: int


Refuse = Callable[[str], str | None]
"""Path relative to the root (folders end with "/") -> the reason to leave it out, or None to take it."""


def kind_of(name: str) -> str | None:
    """ "code" or "prose" by the file's ending or name; None if its format is not read."""
    base = name.rpartition("/")[2].lower()
    stem, dot, ending = base.rpartition(".")
    if dot and stem:
        return KIND_BY_ENDING.get(ending)
    return KIND_BY_NAME.get(base)


def format_of(name: str) -> str:
    """The ending without its dot, in lower case; "" if there is none."""
    stem, dot, ending = name.rpartition("/")[2].lower().rpartition(".")
    return ending if dot and stem else ""


def walk(
    root: Path, refuse: Refuse | None = None, left_out: frozenset[str] = LEFT_OUT_FOLDERS
) -> Iterator[FileEntry | Skipped]:
    """Every regular file below `root`, in the order of names.

    Links are listed and never followed, so a loop is harmless and nothing outside `root` is read. Hidden folders and
    those in `left_out` are listed as left out; folders that cannot be opened are, too.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(prefix or "./", f"cannot be opened ({error.strerror})")
            continue
        folders = []
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                yield Skipped(name, "a link; links are not followed")
            elif entry.is_dir(follow_symlinks=False):
                reason = _folder_reason(entry.name, left_out) or (refuse(name + "/") if refuse else None)
                if reason is None:
                    folders.append(name + "/")
                elif entry.name not in _DERIVED:
                    yield Skipped(name + "/", reason)
            else:
                yield _entry(name, entry, refuse)
        pending.extend(reversed(folders))


def listed(root: Path, names: tuple[str, ...], refuse: Refuse | None = None) -> Iterator[FileEntry | Skipped]:
    """The same for files whose names are known already; names that lead outside of `root` are refused."""
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            yield Skipped(name, "lies outside of its folder")
            continue
        hidden = "hidden file" if name.startswith(".") or "/." in name else None
        reason = hidden or (refuse(name) if refuse else None)
        if reason is not None:
            yield Skipped(name, reason)
            continue
        path = root / name
        try:
            status = path.stat()
        except OSError as error:
            yield Skipped(name, f"cannot be read ({error.strerror})")
            continue
        yield FileEntry(name, path, status.st_size, status.st_mtime_ns)


def decode(content: bytes) -> tuple[str | None, str]:
    """(text, "") or (None, reason).

    A byte order mark decides; else UTF-8; else the encoding that one of the first two lines declares in the way of
    Emacs and Vim (`coding: latin-1`). Nothing is guessed, since a wrong guess is silent damage.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), ""
            except UnicodeDecodeError as error:
                return None, f"not {encoding.upper()}, though it says so (byte {error.start:,})"
    if b"\x00" in content:
        return None, "binary"
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (0x{content[error.start]:02x} at byte {error.start:,})"
    declared = _DECLARED.match(content)
    if declared and (encoding := declared[1].decode("ascii").lower()).startswith(_SAFE_CODECS):
        try:
            return content.decode(encoding), ""
        except (LookupError, UnicodeError):
            reason += f", nor {encoding}, though it says so"
    return None, reason


def _folder_reason(name: str, left_out: frozenset[str]) -> str | None:
    if name.startswith("."):
        return "hidden folder"
    if name in left_out or name.endswith((".egg-info", ".dist-info")):
        return "installed, built or copied files"
    return None


def _entry(name: str, entry: os.DirEntry[str], refuse: Refuse | None) -> FileEntry | Skipped:
    reason = "hidden file" if entry.name.startswith(".") else (refuse(name) if refuse else None)
    if reason is not None:
        return Skipped(name, reason)
    try:
        if not entry.is_file(follow_symlinks=False):
            return Skipped(name, "not a regular file")
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Skipped(name, f"cannot be read ({error.strerror})")
    return FileEntry(name, Path(entry.path), status.st_size, status.st_mtime_ns)
