"""Finding kits and choosing one for a document."""

from __future__ import annotations

from importlib.resources import files

import pytest

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.data.message import Message, TextPart
from ownlm.recipe import kit as kit_module
from ownlm.recipe.kit import Kit, find_kit, kit_for, kits, main_kit
from ownlm.runtime.errors import OwnLMError


def document(name: str, kind: str, ending: str, size: int = 10) -> Document:
    return Document(name, name, "MIT", kind, ending, (TextPart("x" * size),))


CODE = document("a:b.py", "code", "py")
NOTES = document("a:b.md", "prose", "md", 30)
OTHER = document("a:b.rs", "code", "rs", 1_000)
TOPIC = document("reference:if", "prose", "rst")


def test_the_built_in_kits_are_found_and_complete() -> None:
    found = kits()
    assert [kit.name for kit in found][:2] == ["python", "prose"]
    for kit in found:
        assert isinstance(kit, Kit)
        assert len(kit.watch_prompts()) == 3
        assert kit.starters()


def test_the_first_kit_that_applies() -> None:
    found = kits()
    chosen = [kit_for(each, found) for each in (CODE, NOTES, TOPIC, OTHER)]
    assert [kit.name if kit else None for kit in chosen] == ["python", "prose", "python", "prose"]
    assert kit_for(OTHER, found[:1]) is None


def test_the_main_kit_has_most_bytes() -> None:
    assert main_kit([CODE, NOTES], kits()).name == "prose"
    assert main_kit([CODE, CODE, CODE, CODE, NOTES], kits()).name == "python"
    with pytest.raises(OwnLMError, match=r"No kit can make instruction examples.*kits: python"):
        main_kit([OTHER], kits()[:1])


def test_unknown_and_broken_kits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OwnLMError, match="pyton"):
        find_kit("pyton")
    monkeypatch.setattr(kit_module, "load_extension", lambda group, name: object())
    with pytest.raises(OwnLMError, match="is no kit: it lacks name"):
        find_kit("broken")


def test_an_example_ends_with_the_answer() -> None:
    example = InstructionExample.of("question", "answer", "a:b", "task")
    assert (example.prompt[0].text, example.answer) == ("question", "answer")
    with pytest.raises(ValueError, match="followed by"):
        InstructionExample((Message.of("user", "question"),), "a:b", "task")
    with pytest.raises(ValueError, match="followed by"):
        InstructionExample((Message.of("user", "a"), Message.of("user", "b")), "a:b", "task")


def test_the_suite_of_the_python_kit_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    suite = pytest.importorskip("ownlm.evaluate.suite")
    from ownlm.recipe.kits.python.scorer import scorer
    from ownlm.score import text

    # Found through its entry point once the package is installed; here the source tree is enough.
    monkeypatch.setattr(text, "BUILT_IN", {**text.BUILT_IN, scorer.name: scorer})
    read = suite.read_suite(files("ownlm.recipe.kits.python") / "suite.yaml")
    assert len(read.cases) == 20
    assert {tag for case in read.cases for tag in case.tags} == {"continue", "write", "know"}


def test_the_scorer() -> None:
    from ownlm.recipe.kits.python.scorer import scorer
    from ownlm.score.text import Answer

    assert scorer.score(Answer("```python\nx = 1\n```"), True) == 1.0
    assert scorer.score(Answer("x = "), True) == 0.0
    assert scorer.score(Answer("x = "), False) == 1.0
    assert scorer.complaint("yes") and not scorer.complaint(True)
