import pytest
from pydantic import ValidationError

from ownlm.serve.schemas import ChatRequest


def test_a_conversation_has_at_most_a_thousand_messages() -> None:
    turn = {"role": "user", "content": "a"}
    assert len(ChatRequest.model_validate({"model": "m", "messages": [turn] * 1_000}).messages) == 1_000
    with pytest.raises(ValidationError, match="at most 1000 items"):
        ChatRequest.model_validate({"model": "m", "messages": [turn] * 1_001})
