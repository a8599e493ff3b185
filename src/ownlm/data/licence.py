"""Licences as SPDX expressions: reading them from files and package metadata, and which of them permit learning.

The allow-list holds licences that ask for no more than a notice: https://spdx.org/licenses. What is not understood is
"unknown", never guessed to be free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

UNKNOWN = "unknown"
BSD_UNVERSIONED = "LicenseRef-BSD"
"""A text or classifier that says "BSD" and not which of them; all of them are permissive."""

PERMISSIVE = frozenset({
    "0BSD", "AFL-3.0", "Apache-2.0", "BlueOak-1.0.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause",
    "BSD-3-Clause-Clear", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "NCSA", "PSF-2.0",
    "Python-2.0", "Python-2.0.1", "Unicode-3.0", "Unlicense", "WTFPL", "X11", "Zlib", "ZPL-2.1", BSD_UNVERSIONED,
})  # fmt: skip

_SPELLINGS = {
    "mit": "MIT", "mit license": "MIT", "the mit license": "MIT", "the mit license (mit)": "MIT", "expat": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache-2": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache license version 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0", "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0", "apache license v2.0": "Apache-2.0", "apache": "Apache-2.0",
    "apache license": "Apache-2.0",
    "bsd": BSD_UNVERSIONED, "bsd license": BSD_UNVERSIONED, "bsd-like": BSD_UNVERSIONED,
    "new bsd": "BSD-3-Clause", "new bsd license": "BSD-3-Clause", "modified bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause", "bsd 3-clause license": "BSD-3-Clause", "3-clause bsd": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause", "bsd (3-clause)": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause", "bsd 2-clause license": "BSD-2-Clause", "simplified bsd": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause", "2-clause bsd license": "BSD-2-Clause",
    "isc license": "ISC", "isc license (iscl)": "ISC",
    "psf": "PSF-2.0", "psf license": "PSF-2.0", "psfl": "PSF-2.0", "python software foundation license": "PSF-2.0",
    "zlib/libpng license": "Zlib", "the unlicense": "Unlicense", "the unlicense (unlicense)": "Unlicense",
    "zope public license": "ZPL-2.1", "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "historical permission notice and disclaimer (hpnd)": "HPND", "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}  # fmt: skip
_SPELLINGS |= {identifier.lower(): identifier for identifier in PERMISSIVE}

# Phrases of the licences' own texts, the more specific first; every phrase of an entry must be there.
_TEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0-only", ("gnu affero general public license",)),
    ("LGPL-3.0-only", ("gnu lesser general public license",)),
    ("LGPL-2.0-only", ("gnu library general public license",)),
    ("GPL-3.0-only", ("gnu general public license",)),
    ("MPL-2.0", ("mozilla public license",)),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "neither the name")),
    ("BSD-3-Clause", ("redistribution and use in source and binary forms", "may not be used to endorse")),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("BSL-1.0", ("boost software license",)),
    ("Zlib", ("this software is provided 'as-is', without any express or implied warranty", "altered source versions")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software", "appear in all copies")),
    ("ISC", ("permission to use, copy, modify, and distribute this software", "appear in all copies")),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice")),
    ("MIT-0", ("permission is hereby granted, free of charge",)),
)  # fmt: skip
_FILES = re.compile(r"(licen[cs]e|copying|unlicense)([-._].*)?", re.IGNORECASE)
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9][A-Za-z0-9.+:-]*)")
_CLASSIFIER, _OSI = "License :: ", "OSI Approved"


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met with permissive licences alone: OR needs one side, AND both.

    Anything that is not a well-formed expression is not permissive.
    """
    tokens = _tokens(expression)
    if not tokens:
        return False
    try:
        value, rest = _either(tokens)
    except (IndexError, ValueError, RecursionError):
        return False
    return value and not rest


def from_name(text: str) -> str:
    """The SPDX form of a licence's usual name ("MIT License", "Apache 2.0"), or of an SPDX expression; or "unknown"."""
    text = " ".join(text.split()).strip("\"'. ")
    if (known := _SPELLINGS.get(text.lower())) is not None:
        return known
    tokens = _tokens(text) if len(text) <= 300 else None
    if not tokens:
        return UNKNOWN
    if len(tokens) == 1:
        return text if re.fullmatch(r"[A-Za-z0-9.+-]*-\d[A-Za-z0-9.+-]*", text) else UNKNOWN
    operators = {"AND", "OR", "WITH"} & {token.upper() for token in tokens}
    return re.sub(r"\b(and|or|with)\b", lambda m: m[0].upper(), text) if operators and _parses(tokens) else UNKNOWN


def from_text(text: str) -> str:
    """The licence whose own phrases stand first in `text` (a LICENSE file), or "unknown".

    What follows the first one are the licences of bundled parts.
    """
    start = " ".join(text[:20_000].split()).lower()
    found = [
        (start.index(phrases[0]), rank, identifier)
        for rank, (identifier, phrases) in enumerate(_TEXTS)
        if all(phrase in start for phrase in phrases)
    ]
    return min(found)[2] if found else UNKNOWN


def from_folder(folder: Path) -> str:
    """The licence that a LICENSE or COPYING file of this folder holds, or "unknown"."""
    try:
        files = sorted(path for path in folder.iterdir() if _FILES.fullmatch(path.name) and path.is_file())
    except OSError:
        return UNKNOWN
    found = []
    for path in files[:8]:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                found.append(from_text(file.read(20_000)))
        except OSError:
            continue
    named = sorted(set(found) - {UNKNOWN})
    return " AND ".join(named) if named else UNKNOWN


def from_metadata(expression: str, licence: str, classifiers: Iterable[str], folder: Path | None = None) -> str:
    """The licence of a package by its metadata, the surest statement first.

    The fields `License-Expression`, `License` and `Classifier` of the core metadata
    (https://packaging.python.org/specifications/core-metadata), then the licence files in `folder`. Several
    classifiers all hold ("AND"): that may leave a package out that offers a choice, and takes none in wrongly.
    """
    if expression.strip():
        return from_name(expression)
    if (named := from_name(licence)) not in (UNKNOWN, BSD_UNVERSIONED):
        return named
    stated = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith(_CLASSIFIER) and c != _CLASSIFIER + _OSI]
    by_class = sorted({from_name(name) for name in stated})
    if by_class and by_class != [BSD_UNVERSIONED] and UNKNOWN not in by_class:
        return " AND ".join(by_class)
    if UNKNOWN in by_class:
        return UNKNOWN
    if len(licence) > 200 and (pasted := from_text(licence)) != UNKNOWN:
        return pasted
    in_files = from_folder(folder) if folder else UNKNOWN
    if in_files != UNKNOWN:
        return in_files
    return BSD_UNVERSIONED if BSD_UNVERSIONED in (named, *by_class) else UNKNOWN


def _tokens(text: str) -> list[str] | None:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    return tokens


def _parses(tokens: list[str]) -> bool:
    try:
        return not _either(tokens)[1]
    except (IndexError, ValueError, RecursionError):
        return False


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    value, rest = _both(tokens)
    while rest and rest[0].upper() == "OR":
        other, rest = _both(rest[1:])
        value = value or other
    return value, rest


def _both(tokens: list[str]) -> tuple[bool, list[str]]:
    value, rest = _one(tokens)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:])
        value = value and other
    return value, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    head, rest = tokens[0], tokens[1:]
    if head == "(":
        value, rest = _either(rest)
        if rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    if head == ")" or head.upper() in ("AND", "OR", "WITH"):
        raise ValueError(f"'{head}' where a licence should stand")
    if rest and rest[0].upper() == "WITH":  # an exception only adds permissions
        rest = rest[2:]
    return _SPELLINGS.get(head.lower()) in PERMISSIVE, rest
