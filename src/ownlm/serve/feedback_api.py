"""`POST /v1/feedback`: a thumb on one answer, or which of two is better."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from ownlm.serve.api import Context
from ownlm.serve.context import ServeContext
from ownlm.serve.schemas import Body, ChatMessage, InvalidField, Strict
from ownlm.store.feedback import Feedback

router = APIRouter(prefix="/v1")
Short = Field(default=None, max_length=200)


class JudgedAnswer(Strict):
    """`model` is a served name; `model_id` the artifact that answered (the response's `ownlm.model_id`), which tells
    more than the name once that has moved on.
    """

    model: str
    text: str
    model_id: str | None = Field(default=None, pattern=r"^[\w.+-]{1,120}$")
    sampling: dict[str, str | int | float | bool | list[str] | None] = Field(default_factory=dict)


class FeedbackRequest(Body):
    """See `ownlm.store.feedback.Feedback`."""

    kind: Literal["thumb", "pair"]
    prompt: str | list[ChatMessage]
    answers: list[JudgedAnswer] = Field(min_length=1, max_length=2)
    verdict: str
    session: str = Field(default="api", min_length=1, max_length=200)
    order_shown: Literal["ab", "ba"] | None = None
    strength: int | None = None
    edit: str | None = None
    reason: str | None = None
    annotator: str | None = Short
    annotator_group: str | None = Short
    seconds_taken: float | None = Field(default=None, ge=0, allow_inf_nan=False)


@router.post("/feedback", status_code=201)
def give_feedback(body: FeedbackRequest, context: Context) -> dict[str, Any]:
    """Keeps a verdict for the next round of training."""
    answers = [_answer(each, context) for each in body.answers]
    prompt = _messages(body.prompt)
    feedback = Feedback(**body.model_dump(exclude={"prompt", "answers"}), prompt=prompt, answers=answers)
    number = context.feedback.add(feedback)
    context.metrics.feedback.labels(body.kind).inc()
    return {"object": "feedback", "id": number, "created": int(feedback.created.timestamp())}


def _answer(given: JudgedAnswer, context: ServeContext) -> dict[str, Any]:
    model_id = given.model_id or context.models.describe(given.model).artifact_id or given.model
    context.models.check(given.model)
    return {"model_id": model_id, "model": given.model, "text": given.text, "sampling": given.sampling}


def _messages(prompt: str | list[ChatMessage]) -> list[dict[str, Any]]:
    messages = [ChatMessage(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    if not messages:
        raise InvalidField("prompt", "prompt is empty: give a text or messages.")
    return [message.message(index).to_json() for index, message in enumerate(messages)]
