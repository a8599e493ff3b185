"""The demo's sources: the library without tests, its reference by topic, packages by their licence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.data.corpus import CorpusSettings, collect
from ownlm.data.document import Document
from ownlm.data.files import FileEntry
from ownlm.recipe.kits.python.sources import library_sources, package_sources
from ownlm.runtime.errors import CorpusError


def module(n: int, size: int = 40) -> str:
    return "".join(f"def f{n}_{i}(x):\n    return x + {n} * {i}\n\n\n" for i in range(size))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "lib"
    for n in range(60):
        (root / f"pack{n}").mkdir(parents=True)
        (root / f"pack{n}" / "mod.py").write_text(module(n, 500))
    for name in ("test/test_a.py", "json/tests/x.py", "unittest/case.py", "venv/__init__.py", "site-packages/x/y.py",
                 "_sysconfigdata_x.py", "ensurepip/a.py", "test_own.py", "encodings/cp0.py"):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(module(99))
    (root / "encodings" / "cp0.py").write_text('"""Codec cp0 generated from \'CP0.TXT\' with gencodec.py."""\n' * 9)
    (root / "pydoc_data").mkdir()
    (root / "pydoc_data" / "topics.py").write_text(
        "topics = {'assert': 'The assert statement\\n\\nIt asserts a thing.\\n', 1: f(), **more,\n"
        " 'if': 'The \"if\" statement\\n\\nIt chooses between two things.\\n'}\n"
    )
    return root


def package(root: Path, name: str, licence: str, files: dict[str, str], record: bool = True) -> None:
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\n{licence}\n\n# {name}\n\nThis is what the package {name} is for.\n")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    if record:
        rows = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD", "../../bin/tool.py", f"{name}/x.so"]
        (info / "RECORD").write_text("".join(f"{row},sha256=x,1\n" for row in rows))


def read(sources: list[object]) -> tuple[list[Document], dict[str, str]]:
    collection = collect(sources, CorpusSettings())  # type: ignore[arg-type]
    return collection.documents, {each.source: each.reason for each in collection.skipped}


def test_the_library_comes_without_tests_and_with_its_reference(library: Path) -> None:
    documents, skipped = read(list(library_sources(library)))
    names = {document.source for document in documents}
    assert {"stdlib:pack1/mod.py", "stdlib:unittest/case.py"} & names
    assert "stdlib:venv/__init__.py" in names or "the same as another document" in skipped["stdlib:venv/__init__.py"]
    assert skipped["stdlib:test/"] == skipped["stdlib:json/tests/"] == skipped["stdlib:test_own.py"] == "tests"
    assert skipped["stdlib:encodings/cp0.py"] == "says that it was generated"
    assert {"stdlib:site-packages/", "stdlib:ensurepip/", "stdlib:_sysconfigdata_x.py"} <= set(skipped)
    topics = [document for document in documents if document.source.startswith("reference:")]
    assert [(d.source, d.group, d.kind, d.licence) for d in topics] == [
        ("reference:assert", "reference:assert", "prose", "PSF-2.0"),
        ("reference:if", "reference:if", "prose", "PSF-2.0"),
    ]
    assert topics[1].text == 'The "if" statement\n\nIt chooses between two things.\n'
    assert next(d for d in documents if d.source == "stdlib:pack1/mod.py").group == "stdlib:pack1"


@pytest.mark.parametrize("there", ["nothing", "little", "bytecode"])
def test_a_python_without_sources_asks_for_a_folder(tmp_path: Path, there: str) -> None:
    root = tmp_path / "lib"
    if there != "nothing":
        root.mkdir()
        (root / ("os.py" if there == "little" else "os.pyc")).write_text("x = 1\n" * 300_000 * (there == "bytecode"))
    with pytest.raises(CorpusError, match=r"no sources of its standard library.*ownlm demo DIR"):
        library_sources(root)


def test_packages_are_taken_by_licence(tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    package(root, "free", "License-Expression: MIT", {
        "free/a.py": module(1), "free/tests/test_a.py": module(2), "free/guide.rst": "A guide to free.\n" * 9,
        "free/data.txt": "words\n" * 99, "free/.hidden/agent.md": "hidden\n" * 99, "free/big.py": "x = 1\n" * 60_000,
    })  # fmt: skip
    package(root, "copyleft", "License: GPL-3.0-only", {"copyleft/a.py": module(3)})
    package(root, "unsaid", "Summary: no word about it", {"unsaid/a.py": module(4)})
    package(root, "norecord", "License-Expression: MIT", {"norecord/a.py": module(5)}, record=False)
    package(root, "ownlm", "License-Expression: Apache-2.0", {"ownlm/a.py": module(6)})
    documents, skipped = read(list(package_sources(root)))
    assert [d.source for d in documents] == ["free:README", "free:free/a.py", "free:free/guide.rst"]
    assert {(d.group, d.licence) for d in documents} == {("free:", "MIT")}
    assert documents[0].text == "# free\n\nThis is what the package free is for.\n"
    assert skipped["copyleft:"] == "its licence is GPL-3.0-only; only permissive ones are taken"
    assert skipped["unsaid:"] == "its licence is not known; only permissive ones are taken"
    assert "no list of its files" in skipped["norecord:"]
    assert skipped["free:free/tests/test_a.py"] == "tests"
    assert "larger than" in skipped["free:free/big.py"]
    assert not any("ownlm" in name for name in skipped)


def test_no_packages_at_all(tmp_path: Path) -> None:
    assert package_sources(tmp_path) == []


def test_this_machine() -> None:
    try:
        library, *_ = library_sources()
    except CorpusError:
        pytest.skip("this Python has no sources of its library")
    names = {entry.name for entry in library.files() if isinstance(entry, FileEntry)}
    assert {"argparse.py", "json/decoder.py", "venv/__init__.py"} <= names
    assert not any("/test/" in name or name.startswith(("test/", "site-packages/")) for name in names)
