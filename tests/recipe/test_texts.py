"""What a corpus is like, measured on texts whose nature is known."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from ownlm.data.document import Document, Split
from ownlm.data.message import TextPart
from ownlm.data.tokenizer import Tokenizer
from ownlm.recipe import texts
from ownlm.recipe.texts import FADING, PROSE_LEVEL, PYTHON_LEVEL, Text, measure_text


def documents(split: Split, words: int, repeats: int, seed: int) -> list[Document]:
    """Sentences from `words` different words; each document says its own `repeats` times."""
    chance = random.Random(seed)
    known = ["".join(chance.choices("abcdefghijklmnop", k=6)) for _ in range(words)]
    chance.seed(split)
    found = []
    for index in range(24):
        text = " ".join(chance.choices(known, k=1200 // repeats)) * repeats
        found.append(Document(f"{split}{index}", "g", "unknown", "prose", "txt", (TextPart(text),), split))
    return found


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Text]:
    """By what the text is like."""
    monkeypatch.setattr(texts, "SAMPLE", 150_000)
    monkeypatch.setattr(texts, "ASKED", 40_000)
    found = {}
    for name, words, repeats in (("easy", 40, 1), ("hard", 4000, 1), ("repeating", 4000, 8)):
        given: dict[Split, list[Document]] = {s: documents(s, words, repeats, 1) for s in ("train", "heldout")}
        monkeypatch.setattr(texts, "read_documents", lambda folder, split, given=given: given[split])
        found[name] = measure_text(Path())
    return found


def test_harder_texts_have_a_higher_level(measured: dict[str, Text]) -> None:
    levels = {name: text.level or 0 for name, text in measured.items()}
    assert all(0 < level < 8 for level in levels.values())
    assert levels["easy"] < 0.7 * levels["hard"]
    assert levels["easy"] < levels["repeating"] < 0.8 * levels["hard"]
    assert measured["hard"].prose and measured["hard"].factor == pytest.approx(levels["hard"] / PROSE_LEVEL)
    code = dataclasses.replace(measured["hard"], prose=False)
    assert code.factor == pytest.approx(levels["hard"] / PYTHON_LEVEL)


def test_bytes_a_token_are_the_tokenizer_s(measured: dict[str, Text], monkeypatch: pytest.MonkeyPatch) -> None:
    train, heldout = (documents(split, 4000, 1, 1) for split in ("train", "heldout"))
    tokenizer = Tokenizer.train((each.text for each in sorted(train, key=lambda d: d.sha256)), 1024)
    tokens = sum(len(tokenizer.encode(each.text)) for each in heldout)
    expected = sum(each.bytes for each in heldout) / tokens
    assert measured["hard"].bytes_per_token[1024] == pytest.approx(expected, rel=0.03)


def test_the_same_corpus_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {split: documents(split, 300, 1, 2) for split in ("train", "heldout")}
    monkeypatch.setattr(texts, "read_documents", lambda folder, split: given[split])
    first = measure_text(Path())
    given = {split: each[::-1] for split, each in given.items()}
    assert measure_text(Path()) == first


def test_a_text_with_too_little_to_measure_is_taken_for_average(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [Document("a", "g", "unknown", "prose", "txt", (TextPart("a b c"),))]
    monkeypatch.setattr(texts, "read_documents", lambda folder, split: few)
    found = measure_text(Path())
    assert (found.level, found.factor) == (None, 1.0)
    assert found.bytes_of(8192) >= 1.0
    assert Text().factor == 1.0


def test_larger_vocabularies_gain_ever_less() -> None:
    text = Text({2048: 3.0, 4096: 3.4})
    assert text.bytes_of(2048) == 3.0
    assert text.bytes_of(2896) == pytest.approx(3.2, abs=1e-3)
    assert text.bytes_of(4096) == pytest.approx(3.4)
    assert text.bytes_of(8192) == pytest.approx(3.4 + 0.4 * FADING)
    assert text.bytes_of(16384) == pytest.approx(3.4 + 0.4 * (FADING + FADING**2))
    assert 1.0 <= text.bytes_of(300) < 3.0
    assert Text({1024: 2.5}).bytes_of(65536) == 2.5
