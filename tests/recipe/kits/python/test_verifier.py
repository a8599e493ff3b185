"""The verifier: what passes, what fails by which check, and that nothing hostile gets through or runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from ownlm.recipe.kits.python.verifier import compiles, extract, verify_function

GOOD = """\
def mean(values, default=0.0):
    total = sum(values)
    if not values:
        return default
    return total / len(values)
"""
SIGNATURE = "def mean(values, default=0.0):"


def body(uses: str) -> str:
    return f"\n    a = [{uses}]\n    b = a\n    return b\n"


@pytest.mark.parametrize("answer", [GOOD, f"```python\n{GOOD}```", f"Here:\n```\n{GOOD}```\nDone.", f"```py\n{GOOD}"])
def test_a_good_answer_passes_with_and_without_a_fence(answer: str) -> None:
    verdict = verify_function(SIGNATURE, answer, finished=True)
    assert (verdict.passed, verdict.reasons, verdict.value) == (True, (), 1.0)


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (GOOD.replace("values:", "values"), ("compiles", "signature", "uses_parameters", "no_stub")),
        ("", ("signature", "uses_parameters", "no_stub")),
        ("Sure, this computes the mean.", ("compiles", "signature", "uses_parameters", "no_stub")),
        (GOOD.replace("mean", "average"), ("signature", "uses_parameters", "no_stub")),
        (GOOD.replace("default=0.0", "default=1.0"), ("signature",)),
        (GOOD.replace("values, default=0.0", "default, values=0.0"), ("signature",)),
        (GOOD.replace("values, default=0.0", "values, *, default=0.0"), ("signature",)),
        (GOOD.replace("values, default=0.0", "values, /, default=0.0"), ("signature",)),
        (GOOD.replace("values, default=0.0", "values, default=0.0, *more"), ("signature", "uses_parameters")),
        ("async " + GOOD, ("signature",)),
        (GOOD.replace("return default", "return 0"), ("uses_parameters",)),
        ("def mean(values, default=0.0):\n    return values or default\n", ("no_stub",)),
        (f'{SIGNATURE}\n    """Docs."""\n    pass\n    ...\n    return values, default\n', ("no_stub",)),
        ("def mean(values, default=0.0):\n    values = default = 1\n    x = 2\n    return x\n", ("uses_parameters",)),
        (GOOD + "return 1\n", ("compiles",)),
        (GOOD + "def f(a, a): pass\n", ("compiles",)),
        (GOOD + "x = 'open\n", ("compiles", "signature", "uses_parameters", "no_stub")),
    ],
)  # fmt: skip
def test_which_check_fails(answer: str, reasons: tuple[str, ...]) -> None:
    verdict = verify_function(SIGNATURE, answer, finished=True)
    assert verdict.reasons == reasons
    assert not verdict.passed
    assert verdict.value == pytest.approx(1 - len(reasons) / 5)


def test_an_answer_that_was_cut_off_fails_only_there() -> None:
    verdict = verify_function(SIGNATURE, GOOD, finished=False)
    assert (verdict.reasons, verdict.value) == (("ends",), pytest.approx(0.8))


@pytest.mark.parametrize(
    ("signature", "answer"),
    [
        ("async def f(x):", "async def f(x):" + body("x")),
        ("def f(x, /, y, *, z):", "def f(x, /, y, *, z):" + body("x, y, z")),
        ("def f(*args, **kwargs):", "def f(*args, **kwargs):" + body("args, kwargs")),
        ("def f(key=lambda a: a + 1):", "def f(key=lambda a: a + 1):" + body("key")),
        ("def f(x={'a': [1, 2]}, y='s'):", 'def f(x={"a": [1, 2]}, y="s"):' + body("x, y")),
        ("def f(x: int, y: str='a') -> bool:", "def f(x, y='a'):" + body("x, y")),
        ("def f(x):", "import os\n\n@staticmethod\ndef f(x):" + body("x")),
        ("def f(x):", "def helper():\n    pass\n\n\ndef f(x):" + body("x")),
        ("def f(self, _unused):", "def f(self, _unused):" + body("1")),
        ("def f(cls):", "def f(cls):" + body("2")),
        ("def f():", "def f():" + body("3")),
        ("def f(x):", "def f(x):\n    def g():\n        return x\n    return g\n"),
        ("def f(x):", "def f(\n    x,\n):" + body("x")),
        ("def f(x):", "def f(x):\n    if True:\n        y = x\n        return y\n"),
        ("def f(ü):", "def f(ü):" + body("ü")),
    ],
)
def test_every_sort_of_signature(signature: str, answer: str) -> None:
    assert verify_function(signature, answer, finished=True).reasons == ()


HOSTILE = {
    "a megabyte of brackets": "(" * 1_000_000,
    "brackets": "(" * 19_000,
    "signs": "-" * 19_000 + "1",
    "attributes": "x" + ".a" * 9_000,
    "sums": "+".join(["x"] * 9_000),
    "calls": "x" + "()" * 9_000,
    "subscripts": "x" + "[0]" * 6_000,
    "lambdas": "lambda:" * 2_700 + "x",
    "blocks": "".join(" " * n + "if x:\n" for n in range(150)),
    "branches": "if x:\n pass\n" + "elif x:\n pass\n" * 1_200,
    "null": "def f(x):\0",
    "surrogate": "x = '\udc80'",
    "digits": "x = " + "9" * 19_000,
    "powers": "x = 9**9**9**9",
    "long": GOOD + "# " + "x" * 30_000,
    "form feeds": "\f" * 10_000,
    "fences": "```" * 6_000,
    "format strings": "f'{" * 4_000,
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_answers_fail_quietly(answer: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not verify_function(SIGNATURE, answer, finished=True).passed
        assert not verify_function(SIGNATURE, SIGNATURE + "\n    return " + answer, finished=True).passed


def test_nothing_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    answer = f"open({str(trace)!r}, 'w')\n@print\ndef mean(values, default=open({str(trace)!r}, 'w')):\n    return 1\n"
    verify_function(SIGNATURE, answer, finished=True)
    compiles(answer)
    assert not trace.exists()


def test_invalid_escapes_warn_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiles("x = '\\d'\nassert (x, 1)\n")


def test_compiles_and_extract() -> None:
    assert compiles("```python\nx = 1\n```")
    assert not compiles("```python\nx = \n```")
    assert not compiles("")
    assert not compiles("return 1")
    assert extract("no fence") == "no fence"
    assert extract("```\na\n```\n```\nb\n```") == "a"
