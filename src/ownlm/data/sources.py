"""A source: where documents come from, under which licence, and which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ownlm.data import licence
from ownlm.data.document import Skipped
from ownlm.data.files import LEFT_OUT_FOLDERS, FileEntry, Refuse, format_of, kind_of, listed, walk
from ownlm.runtime.errors import CorpusError


@dataclass(frozen=True)
class Piece:
    """A document to be: `name` and `group` are relative to its source."""

    name: str
    group: str
    kind: str
    format: str
    text: str


@dataclass(frozen=True)
class Limits:
    """What a file may be at most: its size in bytes and the average length of its lines in characters, by kind."""

    file_bytes: int = 2_000_000
    code_line: float = 400.0
    prose_line: float = 4_000.0

    def line(self, kind: str) -> float:
        """The longest average line for this kind."""
        return self.code_line if kind == "code" else self.prose_line


def top_folder(name: str) -> str:
    """The first part of a relative path: files in one top folder are held out, or trained on, together."""
    return name.partition("/")[0]


@dataclass(frozen=True)
class Source:
    """Files below `root`, and how they become documents.

    Attributes:
        label: what the documents' names begin with; never a path of this machine.
        licence: an SPDX expression, or "unknown".
        group: relative path -> the group that held-out splitting keeps together.
        kind: relative path -> "code", "prose", or None for formats that are not read.
        refuse: relative path -> why it is left out, or None.
        left_out: names of folders that are not entered.
        names: the relative paths, where they are known; else `root` is walked.
        expand: (relative path, text) -> documents, where a file holds several, or has to be read in a special way.
        first: taken whole before the budget is shared among the other sources.
        skipped: what is known to be left out before any file is looked at.
    """

    label: str
    root: Path
    licence: str = licence.UNKNOWN
    group: Callable[[str], str] = top_folder
    kind: Callable[[str], str | None] = kind_of
    refuse: Refuse | None = None
    left_out: frozenset[str] = LEFT_OUT_FOLDERS
    names: tuple[str, ...] | None = None
    expand: Callable[[str, str], Iterable[Piece]] | None = None
    limits: Limits = Limits()
    first: bool = False
    skipped: tuple[Skipped, ...] = ()

    def files(self) -> Iterator[FileEntry | Skipped]:
        """The files to read in the order of names, and what is left out by name, format or size.

        Files of formats that are not read are summed up, one line for each ending.
        """
        yield from self.skipped
        if self.names is None:
            found = walk(self.root, self.refuse, self.left_out)
        else:
            found = listed(self.root, self.names, self.refuse)
        unread: Counter[str] = Counter()
        for entry in found:
            if isinstance(entry, Skipped):
                yield Skipped(f"{self.label}:{entry.source}", entry.reason)
            elif self.kind(entry.name) is None:
                unread[format_of(entry.name)] += 1
            elif entry.size > self.limits.file_bytes:
                reason = f"larger than {self.limits.file_bytes:,} bytes"
                yield Skipped(f"{self.label}:{entry.name}", reason)
            else:
                yield entry
        for ending, count in sorted(unread.items()):
            name = f"*.{ending}" if ending else "files without an ending"
            yield Skipped(
                f"{self.label}:{name}", f"a format that is not read ({count:,} file{'' if count == 1 else 's'})"
            )

    def pieces(self, name: str, text: str) -> Iterable[Piece]:
        """The documents of one file."""
        if self.expand is not None:
            return self.expand(name, text)
        return (Piece(name, self.group(name), self.kind(name) or "prose", format_of(name), text),)


def folder_source(folder: Path | str, label: str | None = None) -> Source:
    """A folder of the user's own: any text files, licensed as its LICENSE file says.

    Raises:
        CorpusError: there is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise CorpusError(f"There is no folder {folder}. Name one that holds text files or code.")
    if not root.is_dir():
        raise CorpusError(f"{folder} is a file. Name the folder that holds it, with everything to learn from.")
    root = root.resolve()
    return Source(label or root.name or "folder", root, licence.from_folder(root))
