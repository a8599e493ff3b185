"""When a prompt counts as unlike the training data."""

from __future__ import annotations

import pytest

from ownlm.data.message import Message
from ownlm.engine.request import TextScore
from ownlm.runtime.errors import UnsupportedParameter
from ownlm.serve.familiarity import Familiarity, familiarity, is_unlike, judged_text
from server_types import Clock

QUESTION = Message.of("user", "what does the function os.path.join do in Python?")


def test_the_rule() -> None:
    assert is_unlike(2.01, 1.0)
    assert not is_unlike(2.0, 1.0)


def test_only_the_last_user_message_is_judged_and_only_a_long_one() -> None:
    assert judged_text([QUESTION, Message.of("assistant", "y" * 50)]) == QUESTION.text
    assert judged_text([QUESTION, Message.of("user", "x" * 39)]) is None
    assert judged_text([Message.of("user", "é" * 20)]) == "é" * 20, "bytes are counted"
    assert judged_text([Message.of("system", "x" * 50)]) is None


def test_scores() -> None:
    assert familiarity(Clock(bits_of_prompt=2.5), [QUESTION]) == Familiarity(pytest.approx(2.5), True)
    assert familiarity(Clock(bits_of_prompt=1.5), [QUESTION]) == Familiarity(pytest.approx(1.5), False)
    assert familiarity(Clock(heldout=None), [QUESTION]) == Familiarity(pytest.approx(1.5), None)
    assert familiarity(Clock(context=8), [QUESTION]) is None, "it does not fit"


def test_a_model_without_scores() -> None:
    class Silent(Clock):
        def score(self, texts: object) -> list[TextScore]:
            raise UnsupportedParameter("score", "No scores here.")

    assert familiarity(Silent(), [QUESTION]) is None
