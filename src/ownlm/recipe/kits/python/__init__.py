"""The kit for Python code: functions to write and to explain, and a verifier that reads what a model wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.recipe.kits.python import pairs
from ownlm.recipe.kits.python.gold import gold_function
from ownlm.recipe.kits.python.verifier import verify_function
from ownlm.recipe.kits.text import gold_words, verify_words
from ownlm.score.verdict import Verdict


class PythonKit:
    """See `ownlm.recipe.kit.Kit`."""

    name = "python"
    suite = Path(__file__).with_name("suite.yaml")

    def applies(self, document: Document) -> bool:
        """Python files, and the topics of the language reference."""
        return document.format == "py" or document.source.startswith("reference:")

    def examples(self, document: Document) -> Iterator[InstructionExample]:
        """See `pairs`."""
        return pairs.examples(document)

    def verifiable(self, example: InstructionExample) -> bool:
        """Functions to write: there the verifier sees more than words."""
        return example.task == pairs.WRITE

    def verify(self, example: InstructionExample, answer: str, finished: bool) -> Verdict:
        """See `verify_function` for functions to write, and `verify_words` for all else."""
        if example.task == pairs.WRITE:
            return verify_function(example.meta["signature"], answer, finished)
        return verify_words(example.prompt[-1].text, answer, finished)

    def gold(self, example: InstructionExample, answer: str) -> float:
        """F1 of identifiers for functions to write, of content words for all else."""
        if example.task == pairs.WRITE:
            return gold_function(example.meta["signature"], example.meta["body"], answer)
        return gold_words(example.answer, answer)

    def starters(self) -> list[str]:
        """In the words of the instruction pairs."""
        return [
            "Write a Python function `def read_lines(path):` Return the lines of a file as a list.",
            "Implement `def is_valid(self, name):` for the class Registry. Return True if the name is valid.",
            "What does `json.dumps` do?",
            "Explain the `with` statement in Python.",
            "What is the class `collections.OrderedDict`?",
        ]

    def watch_prompts(self) -> list[str]:
        """A function, a module's beginning, a sentence."""
        return ["def read(self, size=-1):\n", "import os\nimport sys\n", "The"]


kit = PythonKit()
