"""The gold score: identifiers only, and nothing that the prompt or the verifier gives away."""

from __future__ import annotations

import pytest

from ownlm.recipe.kits.python.gold import gold_function, identifiers

SIGNATURE = "def read(path, size=-1):"
BODY = "    with open(path) as file:\n        data = file.read(size)\n    return data.strip()\n"


def test_identifiers_leave_out_strings_comments_and_keywords() -> None:
    code = "for x in items:  # comment words\n    y = 'text here' + f\"more\" + obj.attr\n    '''doc\nstring'''\n"
    assert identifiers(code) == {"x", "items", "y", "obj", "attr", "f"}


def test_the_true_body_scores_one_and_nothing_scores_zero() -> None:
    assert gold_function(SIGNATURE, BODY, f"```python\n{SIGNATURE}\n{BODY}```") == 1.0
    assert gold_function(SIGNATURE, BODY, "") == 0.0
    assert gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n    pass") == 0.0


def test_parameters_and_the_name_count_nothing() -> None:
    assert gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n    return read(path, size)") == 0.0


def test_f1() -> None:
    # true: open, file, data, strip (`read` is the function's own name); said: open, other; one in common
    assert gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n    return open(path).other") == pytest.approx(2 / 6)


def test_names_in_annotations_and_defaults_of_the_answer_count_nothing() -> None:
    answer = "def read(path: open, size=(strip, data)) -> file:\n    return 1"
    assert gold_function(SIGNATURE, BODY, answer) == 0.0


def test_repeating_gains_nothing_and_rambling_costs() -> None:
    once = gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n    open(path)")
    assert gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n" + "    open(path)\n" * 50) == once
    assert gold_function(SIGNATURE, BODY, f"{SIGNATURE}\n    open(path)\n    a, b, c, d = e") < once


@pytest.mark.parametrize("answer", ["def read(path, size=-1:\n    data = open(", "'''never closed open", "(" * 100_000])
def test_it_works_on_code_that_does_not_parse(answer: str) -> None:
    assert 0.0 <= gold_function(SIGNATURE, BODY, answer) <= 1.0


def test_truth_without_identifiers() -> None:
    assert gold_function("def f():", "    return 1", "def f():\n    return x") == 0.0
