from typing import Any

import pytest

from ownlm.runtime.errors import OwnLMError
from ownlm.score import text
from ownlm.score.text import Answer, Scorer, find_scorer, judge, word_f1


@pytest.mark.parametrize(
    ("name", "target", "good", "bad"),
    [
        ("exact", "42", " 42\n", "42."),
        ("normalised", "The Answer", "answer!", "answers"),
        ("contains", ["def", "return"], "def f(): return", "def f(): pass"),
        ("excludes", "TODO", "done", "TODO"),
        ("starts_with", "def ", "\ndef f", "class"),
        ("regex", r"^def \w+\(", "x\ndef f(", "def 1"),
        ("min_characters", 3, "abc", "ab"),
        ("max_characters", 3, "abc", "abcd"),
        ("min_lines", 2, "a\nb", "a\n"),
        ("max_lines", 1, "a\n", "a\nb"),
        ("json", True, '{"a": 1}', "{a}"),
        ("f1", "a red fox", "red fox", "blue whale"),
    ],
)
def test_each_scorer_tells_good_from_bad(name: str, target: Any, good: str, bad: str) -> None:
    assert judge(Answer(good), {name: target}).passed
    verdict = judge(Answer(bad), {name: target})
    assert not verdict.passed and verdict.reasons == (name,)


def test_finished() -> None:
    assert judge(Answer("x", finished=True), {"finished": True}).passed
    assert not judge(Answer("x", finished=False), {"finished": True}).passed


def test_json_nested_too_deeply_to_read_is_none() -> None:
    deep = Answer("[" * 200_000 + "]" * 200_000)
    assert judge(deep, {"json": True}).reasons == ("json",)
    assert judge(deep, {"json": False}).passed


def test_partial_credit() -> None:
    assert judge(Answer("def"), {"contains": ["def", "return"]}).value == 0.5
    assert word_f1("red fox", "red dog") == pytest.approx(0.5)
    assert word_f1("", "") == 1.0


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(OwnLMError, match=r"'contain'.*Did you mean 'contains'"):
        find_scorer("contain")


@pytest.mark.parametrize(
    ("name", "target"), [("regex", "("), ("max_lines", "3"), ("max_lines", True), ("contains", []), ("json", 1)]
)
def test_targets_are_checked(name: str, target: Any) -> None:
    with pytest.raises(OwnLMError, match=f"'{name}' needs"):
        judge(Answer("x"), {name: target})


def _extensions(monkeypatch: pytest.MonkeyPatch, **extensions: Any) -> None:
    monkeypatch.setattr(text, "extension_names", lambda group: sorted(extensions))
    monkeypatch.setattr(text, "load_extension", lambda group, name: extensions[name])


def test_other_packages_add_scorers_but_replace_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shout = Scorer("shout", lambda answer, target: float(answer.text.isupper() == target), lambda target: None)
    _extensions(monkeypatch, shout=shout, exact=shout)
    assert judge(Answer("HI"), {"shout": True}).passed
    assert judge(Answer("hi"), {"exact": "hi"}).passed


def test_what_is_no_scorer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _extensions(monkeypatch, odd=3)
    with pytest.raises(OwnLMError, match=r"'odd'.*is not an"):
        find_scorer("odd")
