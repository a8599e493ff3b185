"""Licences: SPDX expressions, usual names, licence files, package metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.data.licence import UNKNOWN, from_folder, from_metadata, from_name, from_text, is_permissive

MIT = (
    "MIT License\n\nPermission is hereby granted, free of charge, to any person ... \n"
    "The above copyright notice and this permission\nnotice shall be included in all copies."
)
BSD3 = "Redistribution and use in source and binary forms ... Neither the name of the owner"
APACHE = "                Apache License\n           Version 2.0, January 2004"
GPL = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
LGPL = "GNU LESSER GENERAL PUBLIC LICENSE ... of the GNU General Public License"


@pytest.mark.parametrize(
    ("expression", "permissive"),
    [
        ("MIT", True),
        ("mit", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (MIT OR Apache-2.0)", False),
        ("(MIT OR GPL-2.0-only) AND (Apache-2.0 OR LGPL-2.1-only)", True),
        ("MIT AND GPL-3.0-only OR ISC", True),
        ("ISC OR MIT AND GPL-3.0-only", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("GPL-3.0-or-later", False),
        ("MIT AND", False),
        ("MIT OR", False),
        ("AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT MIT", False),
        ("MIT; drop", False),
        ("", False),
        ("unknown", False),
        ("(" * 5000 + "MIT" + ")" * 5000, False),
    ],
)
def test_is_permissive(expression: str, permissive: bool) -> None:
    assert is_permissive(expression) is permissive


@pytest.mark.parametrize(
    ("name", "spdx"),
    [
        ("MIT License", "MIT"),
        ("Apache Software License", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ('"Apache 2.0"', "Apache-2.0"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("BSD", "LicenseRef-BSD"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("mit and bsd-3-clause", "mit AND bsd-3-clause"),
        ("GPL-3.0-only", "GPL-3.0-only"),
        ("Proprietary", UNKNOWN),
        ("UNKNOWN", UNKNOWN),
        ("see LICENSE and COPYING", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_from_name(name: str, spdx: str) -> None:
    assert from_name(name) == spdx


def test_from_text_takes_the_licence_that_comes_first() -> None:
    assert [from_text(text) for text in (MIT, BSD3, APACHE, GPL, LGPL, "All rights reserved.")] == [
        "MIT", "BSD-3-Clause", "Apache-2.0", "GPL-3.0-only", "LGPL-3.0-only", UNKNOWN,
    ]  # fmt: skip
    assert from_text(f"{BSD3}\n\nBundled parts:\n{GPL}") == "BSD-3-Clause"
    assert from_text(f"{GPL}\n\nsome files: {MIT}") == "GPL-3.0-only"


def test_from_folder_joins_several_files(tmp_path: Path) -> None:
    assert from_folder(tmp_path) == UNKNOWN
    assert from_folder(tmp_path / "missing") == UNKNOWN
    (tmp_path / "LICENSE-MIT").write_text(MIT)
    assert from_folder(tmp_path) == "MIT"
    (tmp_path / "COPYING.txt").write_text(GPL)
    assert from_folder(tmp_path) == "GPL-3.0-only AND MIT"
    assert not is_permissive(from_folder(tmp_path))


@pytest.mark.parametrize(
    ("expression", "licence", "classifiers", "spdx"),
    [
        ("MIT", "GPL-3.0-only", [], "MIT"),
        ("", "MIT License", ["License :: OSI Approved :: BSD License"], "MIT"),
        ("", "", ["License :: OSI Approved :: MIT License"], "MIT"),
        ("", "Dual License", ["License :: OSI Approved :: BSD License",
         "License :: OSI Approved :: Apache Software License"],
         "Apache-2.0 AND LicenseRef-BSD"),
        ("", "", ["License :: OSI Approved :: MIT License", "License :: Other/Proprietary License"], UNKNOWN),
        ("", "", ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], UNKNOWN),
        ("", "", ["License :: OSI Approved", "License :: OSI Approved :: MIT License"], "MIT"),
        ("", "x" * 200 + BSD3, ["License :: OSI Approved :: BSD License"], "BSD-3-Clause"),
        ("", "BSD", [], "LicenseRef-BSD"),
        ("", "", ["Programming Language :: Python"], UNKNOWN),
    ],
)  # fmt: skip
def test_from_metadata(expression: str, licence: str, classifiers: list[str], spdx: str) -> None:
    assert from_metadata(expression, licence, classifiers) == spdx


def test_from_metadata_reads_licence_files_last(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text(BSD3)
    assert from_metadata("", "BSD", [], tmp_path) == "BSD-3-Clause"
    assert from_metadata("", "", [], tmp_path) == "BSD-3-Clause"
    assert from_metadata("", "MIT", [], tmp_path) == "MIT"
