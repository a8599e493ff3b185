"""The endpoints under /v1."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from ownlm.engine.request import LanguageModel, SamplingParams
from ownlm.serve.answers import Ask, pieces
from ownlm.serve.context import ServeContext
from ownlm.serve.models import ServedModel
from ownlm.serve.replies import Reply
from ownlm.serve.schemas import ChatRequest, CompletionRequest, InvalidField, seeded
from ownlm.serve.shapes import ChatShape, CompletionShape

router = APIRouter(prefix="/v1")


def context_of(request: Request) -> ServeContext:
    """What the app shares."""
    context = request.app.state.context
    assert isinstance(context, ServeContext)
    return context


Context = Annotated[ServeContext, Depends(context_of)]


@router.get("/models")
def list_models(context: Context) -> dict[str, Any]:
    """The names that requests may use."""
    return {"object": "list", "data": [_model(context.models.describe(name)) for name in context.models.names()]}


@router.get("/models/{name:path}")
def show_model(name: str, context: Context) -> dict[str, Any]:
    """One of them."""
    return _model(context.models.describe(name))


@router.post("/chat/completions")
async def chat(body: ChatRequest, request: Request, context: Context) -> Response:
    """An answer to a conversation."""
    body.check()
    params, messages = body.params(), body.conversation()
    _limit(body.choices, context)
    asks = [Ask(choice, 0, messages, each) for choice, each in enumerate(seeded(params, body.choices))]
    reply = Reply(context, ChatShape(context.models.check(body.model)))
    return await reply.send(
        request, lambda model: pieces(model, asks, body.params_for, messages), bool(body.stream), body.include_usage
    )


@router.post("/completions")
async def complete(body: CompletionRequest, request: Request, context: Context) -> Response:
    """Continuations of texts."""
    body.check()
    params, prompts = body.params(), body.prompts()
    _limit(body.choices * len(prompts), context)
    choices = seeded(params, body.choices)
    asks = [
        Ask(index * len(choices) + choice, index, prompt, each)
        for index, prompt in enumerate(prompts)
        for choice, each in enumerate(choices)
    ]
    reply = Reply(context, CompletionShape(context.models.check(body.model), echo=bool(body.echo)))
    return await reply.send(
        request, lambda model: pieces(model, asks, _as_given, None), bool(body.stream), body.include_usage
    )


def _as_given(model: LanguageModel, params: SamplingParams) -> SamplingParams:
    return params


def _limit(answers: int, context: ServeContext) -> None:
    most = context.settings.max_answers
    if answers > most:
        raise InvalidField("n", f"The request asks for {answers} answers; this server gives {most} at most.")


def _model(model: ServedModel) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(model).items() if value not in (None, "") and name != "created"}
    facts.pop("name")
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "ownlm", "ownlm": facts}
