"""Instruction pairs: clean, short, checked, and the same every time."""

from __future__ import annotations

import ast
import json
import sysconfig
from pathlib import Path

import pytest

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.recipe.kits.python import kit
from ownlm.recipe.kits.python.functions import first_paragraph, module_name
from ownlm.recipe.kits.python.pairs import DOCS, SUMMARY, WRITE

CODE = '''\
import os


class Store:
    """Keeps things in a folder.

    More about it.
    """

    @staticmethod
    def load(path, mode="r",
             encoding=None):
        """Load the *content* of a ``file``.

        Not this paragraph.
        """

        # a comment that stays
        with open(path, mode, encoding=encoding) as file:
            content = file.read()
        return content.strip()

    def _private(self, name):
        """Return the full path of a name."""
        folder = os.path.abspath(self.folder)
        name = os.path.basename(name)
        return os.path.join(folder, name)

    @property
    def stub(self):
        """Return nothing that is worth a word."""
        raise NotImplementedError

    @name.setter
    def name(self, value):
        """Set the name to another value."""
        self.a = value
        self.b = value
        self.c = value


def one_liner(x): """Return it all in one line."""; return x


def text(x, y):
    """Join two things with a text between them."""
    middle = """
over lines
"""
    joined = str(x) + middle
    return joined.join([str(y)])


def undocumented(x):
    a = x
    b = a
    return b
'''


def document(text: str = CODE, source: str = "stdlib:pack/store.py", ending: str = "py") -> Document:
    return Document(source, "g", "MIT", "code", ending, (TextPart(text),))


def by_task(task: str, **changes: str) -> list[InstructionExample]:
    return [example for example in kit.examples(document(**changes)) if example.task == task]


def test_functions_to_write() -> None:
    examples = by_task(WRITE)
    assert [example.meta["signature"] for example in examples] == [
        "def text(x, y):",
        "def load(path, mode='r', encoding=None):",
        "def _private(self, name):",
    ]
    load = examples[1]
    assert load.answer.startswith(
        "```python\ndef load(path, mode='r', encoding=None):\n    # a comment that stays\n    with"
    )
    assert load.answer.endswith("    return content.strip()\n```")
    assert "Load the *content* of a `file`." in load.prompt[0].text
    assert load.meta["signature"] in load.prompt[0].text
    assert "Store" in load.prompt[0].text
    assert "Not this paragraph" not in load.prompt[0].text + load.answer
    assert load.meta["body"] in load.answer


def test_the_true_answer_passes_its_own_verifier_and_gold() -> None:
    for example in by_task(WRITE):
        assert kit.verifiable(example)
        assert kit.verify(example, example.answer, True).passed
        assert kit.gold(example, example.answer) == 1.0
        assert not kit.verify(example, "def nothing(): pass", True).passed


def test_strings_over_several_lines_are_not_bent() -> None:
    joined = by_task(WRITE)[0]
    tree = ast.parse(joined.answer.removeprefix("```python\n").removesuffix("\n```"))
    assert any(isinstance(node, ast.Constant) and node.value == "\nover lines\n" for node in ast.walk(tree))
    method = (
        'class A:\n    def text(self, x):\n        """Join things with a text."""\n        a = x\n'
        '        b = """\n{}over\n"""\n        c = a.join(b)\n        return c.strip()\n'
    )
    # Moving this method to the left would change its string, so it is left out.
    assert by_task(WRITE, text=method.format("")) == []
    assert len(by_task(WRITE, text=method.replace('"""\n{}over\n"""', '"over"'))) == 1


def test_functions_to_explain_and_names_to_look_up() -> None:
    summaries = by_task(SUMMARY)
    assert [example.answer for example in summaries] == [
        "Join two things with a text between them.",
        "Load the *content* of a `file`.",
        "Return the full path of a name.",
    ]
    assert all(example.answer not in example.prompt[0].text for example in summaries)
    names = [example.meta["name"] for example in by_task(DOCS)]
    assert "pack.store.Store" in names
    assert "pack.store.Store.load" in names
    assert not any("_private" in name for name in names)


def test_examples_are_the_same_every_time_and_survive_json() -> None:
    first, second = list(kit.examples(document())), list(kit.examples(document()))
    assert first == second
    for example in first:
        assert InstructionExample.from_json(json.loads(json.dumps(example.to_json()))) == example


@pytest.mark.parametrize("text", ["def broken(:\n", "\0", "print 'python 2'\n", "(" * 5_000, "", "# only a comment\n"])
def test_documents_that_are_no_code_give_nothing(text: str) -> None:
    assert list(kit.examples(document(text=text))) == []


def test_topics_of_the_reference() -> None:
    text = (
        'The "assert" statement\n**********************\n\nAssert statements are a convenient way to insert\n'
        "debugging assertions into a program:\n\n   assert x\n\nDetails\n=======\n\n"
        'The current code generator emits no code for an "assert" statement.  It is quick.\n'
    )
    [example] = kit.examples(document(text=text, source="reference:assert", ending="rst"))
    assert "details" in example.prompt[0].text
    assert example.answer == "The current code generator emits no code for an `assert` statement. It is quick."
    assert not kit.verifiable(example)
    assert kit.gold(example, example.answer) == 1.0
    assert kit.verify(example, example.answer, False).reasons[0] == "ends"


@pytest.mark.parametrize(
    ("docstring", "paragraph"),
    [
        (None, ""),
        ("Return x", "Return x."),
        ("\n    Two\n    lines.\n\n    Second.\n    ", "Two lines."),
        ("Use :class:`~a.b.C` and ``d``.", "Use `a.b.C` and `d`."),
        ("foo(x) -> y", ""),
        (">>> doctest", ""),
        (":param x: y", ""),
        ("See the other one.", ""),
        ("Example::\n\n    x", ""),
    ],
)
def test_first_paragraph(docstring: str | None, paragraph: str) -> None:
    assert first_paragraph(docstring) == paragraph


def test_module_name() -> None:
    assert module_name("stdlib:json/decoder.py") == "json.decoder"
    assert module_name("stdlib:json/__init__.py") == "json"
    assert module_name("repo:src/pack/a.py") == "pack.a"


def test_a_real_module() -> None:
    path = Path(sysconfig.get_paths()["stdlib"]) / "shutil.py"
    if not path.is_file():
        pytest.skip("this Python has no sources of its library")
    examples = list(kit.examples(document(text=path.read_text("utf-8"), source="stdlib:shutil.py")))
    assert {example.task for example in examples} == {WRITE, SUMMARY, DOCS}
    assert len(examples) > 20
    assert all(len(example.answer) < 1_000 for example in examples)
