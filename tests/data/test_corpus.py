"""Building a corpus end to end on small folders, and every way in which it can go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from pathlib import Path

import pytest

from ownlm.data.corpus import DOCUMENTS, CorpusSettings, build_corpus, fingerprint, read_documents, survey
from ownlm.data.document import Skipped
from ownlm.data.sources import Limits, Piece, Source, folder_source
from ownlm.runtime.errors import CorpusError


def text(seed: object, count: int = 30) -> str:
    chance = random.Random(str(seed))
    return "".join(f"number {chance.random()} follows {chance.random()}\n" for _ in range(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "my notes"
    for n in range(40):
        path = root / f"part{n}" / f"file{n}.{'py' if n % 2 else 'md'}"
        path.parent.mkdir(parents=True)
        path.write_text(text(n))
    return root


def build(sources: list[Source], out: Path, **settings: object) -> dict[str, object]:
    out.mkdir(exist_ok=True)
    return build_corpus(sources, CorpusSettings(**settings), out)  # type: ignore[arg-type]


def skipped(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "skipped.jsonl").read_text("utf-8").splitlines()]
    return {row["source"]: row["reason"] for row in rows}


def test_what_goes_in_comes_out(folder: Path, tmp_path: Path) -> None:
    (folder / "LICENSE").write_text("Permission is hereby granted, free of charge, ... MIT-0")
    metrics = build([folder_source(folder)], tmp_path / "out")
    documents = read_documents(tmp_path / "out")
    assert len(documents) == metrics["documents"] == 40
    first = next(d for d in documents if d.source == "my notes:part3/file3.py")
    assert (first.text, first.group, first.kind, first.format) == (text(3), "my notes:part3", "code", "py")
    assert first.licence == "MIT-0"
    assert metrics["licences"] == {"MIT-0": metrics["bytes"]}
    assert {d.split for d in documents} == {"train", "heldout"}
    heldout = read_documents(tmp_path / "out", "heldout")
    assert [d.source for d in heldout] == [d.source for d in documents if d.split == "heldout"]
    assert sum(d.bytes for d in heldout) == metrics["heldout_bytes"]
    train = [d for d in documents if d.split == "train"]
    assert (metrics["train_documents"], metrics["train_bytes"]) == (len(train), sum(d.bytes for d in train))
    assert str(tmp_path) not in (tmp_path / "out" / "skipped.jsonl").read_text()
    assert all(str(tmp_path) not in d.source + d.group for d in documents)


def test_the_same_twice(folder: Path, tmp_path: Path) -> None:
    assert build([folder_source(folder)], tmp_path / "a") == build([folder_source(folder)], tmp_path / "b")
    assert (tmp_path / "a" / DOCUMENTS).read_bytes() == (tmp_path / "b" / DOCUMENTS).read_bytes()


def test_half_bad_input_is_counted_and_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "latin.md").write_bytes("Grüße ".encode("latin-1") * 20)
    (folder / "image.md").write_bytes(b"\x89PNG\r\n\x00\x00" * 20)
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / "empty.py").write_text("\n\n")
    (folder / "copy.py").write_text(text(3).replace("\n", "\r\n"))
    (folder / "huge.txt").write_text("word " * 500_000)
    metrics = build([folder_source(folder)], tmp_path / "out")
    listed = skipped(tmp_path / "out")
    assert "not UTF-8" in listed["my notes:latin.md"]
    assert listed["my notes:image.md"] == "binary"
    assert listed["my notes:empty.py"] == "empty"
    assert listed["my notes:*.jpg"] == "a format that is not read (1 file)"
    assert "larger than" in listed["my notes:huge.txt"]
    assert "my notes:copy.py" in listed or "my notes:part3/file3.py" in listed
    assert (metrics["undecodable"], metrics["duplicates"], metrics["skipped"]) == (1, 1, len(listed))
    assert metrics["documents"] == 40


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_unreadable_files_are_listed(folder: Path, tmp_path: Path) -> None:
    locked = folder / "part1" / "file1.py"
    locked.chmod(0)
    build([folder_source(folder)], tmp_path / "out")
    assert "cannot be read" in skipped(tmp_path / "out")["my notes:part1/file1.py"]


def test_a_file_that_vanishes_is_listed(folder: Path, tmp_path: Path) -> None:
    names = tuple(f"part{n}/file{n}.py" for n in range(1, 40, 2))

    def remove_one(name: str, content: str) -> list[Piece]:
        (folder / names[-1]).unlink(missing_ok=True)
        (folder / names[-2]).unlink(missing_ok=True)
        return [Piece(name, name, "code", "py", content)]

    source = Source("notes", folder, names=names, expand=remove_one)
    metrics = build([source], tmp_path / "out")
    assert metrics["documents"] in (18, 19)
    assert any("cannot be read" in reason for reason in skipped(tmp_path / "out").values())


def test_an_empty_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(CorpusError, match=r"nothing readable in .*none.* It is empty"):
        build([folder_source(tmp_path / "none")], tmp_path / "out")


def test_an_unreadable_folder_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    for n in range(3):
        (root / f"{n}.txt").write_bytes(bytes([255, 0, n]) * 40)
    (root / "a.png").write_bytes(b"png")
    with pytest.raises(CorpusError, match=r"pictures.*binary: 3; a format that is not read: 1"):
        build([folder_source(root)], tmp_path / "out")


def test_one_document_is_too_few(tmp_path: Path) -> None:
    root = tmp_path / "one"
    root.mkdir()
    (root / "only.md").write_text(text(1))
    with pytest.raises(CorpusError, match="one readable document"):
        build([folder_source(root)], tmp_path / "out")


def test_repetitions_cannot_be_held_out(tmp_path: Path) -> None:
    root = tmp_path / "same"
    root.mkdir()
    for n in range(6):
        (root / f"{n}.md").write_text(text(1) + text(n, 2))
    with pytest.raises(CorpusError, match="repeat each other"):
        build([folder_source(root)], tmp_path / "out")


def test_no_such_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no folder"):
        folder_source(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(CorpusError, match="is a file"):
        folder_source(tmp_path / "file.txt")


def test_a_budget_is_shared_fairly_after_the_first_sources(tmp_path: Path) -> None:
    sources = []
    for label, count in (("first", 10), ("large", 60), ("other", 60), ("small", 4)):
        root = tmp_path / label
        root.mkdir()
        for n in range(count):
            (root / f"{n}.py").write_text(text((label, n)))
        sources.append(Source(label, root, "MIT", first=label == "first"))
    size = len(text(1))
    metrics = build(sources, tmp_path / "out", max_bytes=50 * size)
    counts: dict[str, int] = {}
    for d in read_documents(tmp_path / "out"):
        counts[d.source.partition(":")[0]] = counts.get(d.source.partition(":")[0], 0) + 1
    assert (counts["first"], counts["small"]) == (10, 4)
    assert abs(counts["large"] - counts["other"]) <= 1
    assert 49 <= sum(counts.values()) <= 52
    assert metrics["over_budget_files"] == 134 - sum(counts.values())


def test_progress_ends_at_the_total(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    (tmp_path / "out").mkdir()
    build_corpus([folder_source(folder)], CorpusSettings(), tmp_path / "out", lambda *pair: seen.append(pair))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == sum(len(text(n)) for n in range(40))


def test_fingerprint_notices_every_change(folder: Path, tmp_path: Path) -> None:
    source, settings = folder_source(folder), CorpusSettings()
    before = fingerprint([source], settings)
    assert fingerprint([folder_source(folder)], settings) == before
    assert fingerprint([source], CorpusSettings(seed=1)) != before
    assert fingerprint([dataclasses.replace(source, licence="MIT")], settings) != before
    (folder / "new.md").write_text("new")
    added = fingerprint([source], settings)
    assert added != before
    os.utime(folder / "new.md", ns=(1, 1))
    assert fingerprint([source], settings) != added
    (folder / "new.md").unlink()
    assert fingerprint([source], settings) == before


def test_survey_counts_without_reading(folder: Path) -> None:
    found = survey([folder_source(folder)], CorpusSettings())
    assert (found.files, found.bytes) == (40, sum(len(text(n)) for n in range(40)))
    assert found.by_source == {"my notes": (40, found.bytes)}


def test_known_omissions_and_expanded_files(folder: Path, tmp_path: Path) -> None:
    def halves(name: str, content: str) -> list[Piece]:
        rows = content.splitlines(keepends=True)
        return [Piece(f"{name}#{n}", name, "prose", "txt", "".join(rows[n::2])) for n in range(2)]

    source = Source("x", folder, expand=halves, limits=Limits(), skipped=(Skipped("gone:", "its licence is GPL"),))
    metrics = build([source], tmp_path / "out")
    assert metrics["documents"] == 80
    assert metrics["kinds"] == {"prose": metrics["bytes"]}
    assert skipped(tmp_path / "out")["gone:"] == "its licence is GPL"


def test_reading_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read as a corpus"):
        read_documents(tmp_path)
    (tmp_path / DOCUMENTS).write_bytes(b"PAR1 not really")
    with pytest.raises(CorpusError, match="cannot be read as a corpus"):
        read_documents(tmp_path)
