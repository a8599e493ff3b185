import numpy as np
import pytest

from evaluate.fakes import Bytes, FromNgram
from ownlm.engine.request import LanguageModel
from ownlm.evaluate.completers import ModelCompleter, NgramCompleter, WordCompleter, heal, one_line
from ownlm.evaluate.keystrokes import Excerpt, replay
from ownlm.evaluate.ngram import NgramModel


@pytest.mark.parametrize(
    ("prefix", "typed"),
    [
        ("def fib", " fib"),
        ("self.na", ".na"),
        ("snake_ca", "_ca"),
        ("x = ", " "),
        ("f(a, b)", ")"),
        ("def f():\n    ", "():\n    "),
        ("x\n\n    ", "\n\n    "),
        ("x = 12", ""),
        ("naïve", "naïve"),
        ("", ""),
    ],
)
def test_healing_takes_the_piece_being_typed(prefix: str, typed: str) -> None:
    assert heal(prefix) == (prefix[: len(prefix) - len(typed)], typed)


def test_one_line() -> None:
    assert one_line(" x = 1 \ny") == " x = 1"
    assert one_line("\n    return x\n") == "\n    return x"
    assert one_line("\n\n") == ""


def test_words() -> None:
    completer = WordCompleter.train(["return result", "return retry", "self self self"])
    assert completer.propose(["x = ret", "re", "", "selfish", "ünder"]) == ["urn", "turn", "self", "", ""]


@pytest.fixture(scope="module")
def ngram() -> NgramModel:
    lines = ["def first(self):\n", "    return self.first\n", "def second(self):\n", "    return self.other\n"] * 30
    stream = np.array([token for line in lines for token in Bytes().encode(line)])
    return NgramModel.train(stream, 257, 5, 0)


def test_the_ngram_completer_keeps_to_what_is_typed(ngram: NgramModel) -> None:
    (proposal,) = NgramCompleter(ngram, Bytes()).propose(["    return self.o"])
    assert proposal.startswith("ther") and "\n" not in proposal.strip()


def test_the_model_completer_keeps_to_what_is_typed_and_remembers(ngram: NgramModel) -> None:
    model = FromNgram(ngram)
    assert isinstance(model, LanguageModel)
    completer = ModelCompleter(model)
    first, other = completer.propose(["def ", "def s"])
    assert first and other.startswith("econ"), (first, other)
    asked = model.requests
    assert completer.propose(["def ", "def s"]) == [first, other]
    assert model.requests == asked


def test_a_model_that_knows_the_text_saves_most_keys(ngram: NgramModel) -> None:
    excerpts = [Excerpt("s", "code", "def first(self):\n", "    return self.first\ndef second(self):\n")]
    completers = [
        ModelCompleter(FromNgram(ngram)),
        NgramCompleter(ngram, Bytes()),
        WordCompleter.train(["unrelated letters"]),
    ]
    model, grams, words = (replay(completer, excerpts).share.value for completer in completers)
    assert model > 0.5 and grams > 0.5 and words < 0.1
