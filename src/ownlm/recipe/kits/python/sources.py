"""The Python files that are on every machine: the standard library, its language reference, installed packages."""

from __future__ import annotations

import ast
import csv
import dataclasses
import sysconfig
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from ownlm.data import licence
from ownlm.data.document import Skipped
from ownlm.data.sources import Limits, Piece, Source
from ownlm.runtime.errors import CorpusError

LIMITS = Limits(file_bytes=300_000, code_line=200.0)
_TESTS = frozenset({"test", "tests", "idle_test", "testing", "_tests", "test_data", "testdata"})
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "lib-dynload", "ensurepip"})
_TOPICS = "pydoc_data/topics.py"
_LEAST_LIBRARY = 1_000_000


def demo_sources() -> list[Source]:
    """Everything that `ownlm demo` reads when no folder is given.

    Raises:
        CorpusError: this Python comes without its library's sources.
    """
    return [*library_sources(), *package_sources()]


def library_sources(folder: Path | None = None) -> list[Source]:
    """The standard library of the running interpreter without its tests, and its language reference as prose.

    Raises:
        CorpusError: there are no sources (a frozen, zipped or trimmed Python).
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    library = Source(
        "stdlib", root, "PSF-2.0", group=_module, kind=_code, refuse=_library_refuse,
        left_out=frozenset({"__pycache__"}), limits=LIMITS, first=True,
    )  # fmt: skip
    size = 0
    if root.is_dir():
        size = sum(entry.size for entry in library.files() if not isinstance(entry, Skipped))
    if size < _LEAST_LIBRARY:
        raise CorpusError(
            f"This Python has no sources of its standard library to learn from ({size:,} bytes in {root}). "
            "Name a folder with your own code or notes: `ownlm demo DIR`."
        )
    reference = Source(
        "reference", root, "PSF-2.0", kind=_code, names=(_TOPICS,), expand=_topics,
        limits=Limits(file_bytes=5_000_000), first=True,
    )  # fmt: skip
    return [library, *([reference] if (root / _TOPICS).is_file() else [])]


def package_sources(folder: Path | None = None) -> list[Source]:
    """The installed packages under permissive licences, one source each; the first one lists those left out."""
    roots = [folder] if folder else [Path(sysconfig.get_paths()[key]) for key in ("purelib", "platlib")]
    taken: list[Source] = []
    left_out: list[Skipped] = []
    for root in dict.fromkeys(roots):
        for info in sorted(root.glob("*.dist-info")):
            source = _package(info)
            if isinstance(source, Source):
                taken.append(source)
            elif source is not None:
                left_out.append(source)
    if not taken:
        return []
    return [dataclasses.replace(taken[0], skipped=tuple(left_out)), *taken[1:]]


def _package(info: Path) -> Source | Skipped | None:
    try:
        head = HeaderParser().parsestr((info / "METADATA").read_text("utf-8", errors="replace"), headersonly=True)
        with (info / "RECORD").open(encoding="utf-8", newline="") as file:
            names = sorted({row[0] for row in csv.reader(file) if row})
    except (OSError, csv.Error):
        return Skipped(f"{info.name.partition('-')[0]}:", "no metadata or no list of its files")
    name = str(head.get("Name") or info.name.partition("-")[0])
    if name.lower() == "ownlm":
        return None
    spdx = licence.from_metadata(
        str(head.get("License-Expression") or ""),
        str(head.get("License") or ""),
        [str(each) for each in head.get_all("Classifier") or ()],
        info / "licenses" if (info / "licenses").is_dir() else info,
    )
    if not licence.is_permissive(spdx):
        said = "its licence is not known" if spdx == licence.UNKNOWN else f"its licence is {spdx}"
        return Skipped(f"{name}:", f"{said}; only permissive ones are taken")
    metadata = f"{info.name}/METADATA"
    wanted = tuple(each for each in names if each == metadata or (_package_kind(each) and ".dist-info/" not in each))
    if not wanted:
        return None
    return Source(
        name, info.parent, spdx, group=lambda path: "", kind=_package_kind, refuse=_test_reason, names=wanted,
        expand=_package_pieces, limits=LIMITS,
    )  # fmt: skip


def _package_pieces(name: str, text: str) -> Iterator[Piece]:
    """A package's file; its METADATA gives the description, which is its README."""
    if name.endswith("/METADATA"):
        _, _, description = text.replace("\r\n", "\n").partition("\n\n")
        yield Piece("README", "", "prose", "md", description)
    else:
        yield Piece(name, "", _package_kind(name) or "code", name.rpartition(".")[2], text)


def _package_kind(name: str) -> str | None:
    if name.endswith(".py"):
        return "code"
    return "prose" if name.endswith((".md", ".rst", "/METADATA")) else None


def _code(name: str) -> str | None:
    return "code" if name.endswith(".py") else None


def _module(name: str) -> str:
    """The top-level module or package."""
    return name.partition("/")[0].removesuffix(".py")


def _test_reason(name: str) -> str | None:
    *folders, base = name.rstrip("/").split("/")
    if name.endswith("/"):
        folders, base = [*folders, base], ""
    if not _TESTS.isdisjoint(folders):
        return "tests"
    if base.startswith("test_") or base.endswith("_test.py") or base == "conftest.py":
        return "tests"
    return None


def _library_refuse(name: str) -> str | None:
    top = name.partition("/")[0]
    if top in _NOT_LIBRARY or top.startswith("config-"):
        return "not part of the library's sources"
    if top.startswith("_sysconfigdata"):
        return "records how this machine's Python was built"
    if name == _TOPICS:
        return "read as the language reference"
    return _test_reason(name)


def _topics(name: str, text: str) -> Iterator[Piece]:
    """One document for each topic of the language reference; the file is a dict display, read without running it."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                try:
                    topic, body = ast.literal_eval(key or ast.Constant("")), ast.literal_eval(value)
                except ValueError:
                    continue
                if isinstance(topic, str) and isinstance(body, str):
                    yield Piece(topic, topic, "prose", "rst", body)
