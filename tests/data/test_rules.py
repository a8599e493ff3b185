"""Rules of other packages: what they refuse is left out, counted and listed with their words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownlm.data import rules
from ownlm.data.corpus import CorpusSettings, build_corpus, read_documents, survey
from ownlm.data.document import Document
from ownlm.data.sources import folder_source
from ownlm.runtime.extensions import ExtensionError


def no_shouting(document: Document) -> str | None:
    return "shouts" if document.text.isupper() else None


def test_a_rule_keeps_documents_out_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rules, "load_extension", lambda group, name: {"ownlm.rules/quiet": no_shouting}[f"{group}/{name}"]
    )
    for n in range(12):
        words = f"this is document number {n}, and it says {n * 7} things about {n * n} others\n"
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{n}.txt").write_text(words.upper() if n in (3, 5) else words)
    source, settings = folder_source(tmp_path / "in"), CorpusSettings(rules=("quiet",))
    metrics = build_corpus([source], settings, tmp_path)
    assert len(read_documents(tmp_path)) == 10
    assert metrics["skipped_reasons"] == {"shouts": 2}
    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert sorted(each["source"] for each in listed) == ["in:3.txt", "in:5.txt"]
    assert survey([source], settings).fingerprint != survey([source], CorpusSettings()).fingerprint


def test_a_rule_that_nobody_provides() -> None:
    with pytest.raises(ExtensionError, match=r"There is no 'quiet' in ownlm\.rules"):
        rules.load_rules(["quiet"])
