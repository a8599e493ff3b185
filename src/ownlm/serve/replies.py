"""From a model's run to an HTTP response, whole or as server-sent events; a reader who leaves stops the model."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ownlm.engine.request import LanguageModel, TextDelta
from ownlm.serve.answers import Note, Piece
from ownlm.serve.context import ServeContext
from ownlm.serve.errors import describe
from ownlm.serve.gateway import Run
from ownlm.serve.shapes import Answer, Json, Shape, usage

T = TypeVar("T")
log = logging.getLogger(__name__)


class ReaderLeft(Exception):
    """The client closed the connection."""


class Reply:
    """One request being answered: runs the model, counts, and writes in the `shape` that was asked for."""

    def __init__(self, context: ServeContext, shape: Shape) -> None:
        self._context, self._shape = context, shape
        self._answers: dict[int, Answer] = {}
        self._started = time.perf_counter()

    async def send(
        self, request: Request, work: Callable[[LanguageModel], Iterator[Piece]], stream: bool, include_usage: bool
    ) -> Response:
        """Waits for the model's turn and the first event, so that every error before it has its own status.

        Raises:
            ModelNotFound, ServerBusy, ContextOverflow, UnsupportedParameter.
        """
        run: Run[Piece] | None = None
        try:
            run = await unless_gone(request, self._context.gateway.run(self._shape.model, work))
            first = await unless_gone(request, anext(run))
            self._first(first.note)
            if stream:
                return EventStream(self._events(run, first, include_usage), run)
            return JSONResponse(await unless_gone(request, self._whole(run, first)))
        except ReaderLeft:
            self._context.metrics.cancelled.labels(self._shape.model).inc()
            return Response(status_code=499)  # nobody reads it
        finally:
            if run is not None and not stream:
                run.cancel()

    async def _whole(self, run: Run[Piece], first: Piece) -> Json:
        self._take(first)
        async for piece in run:
            self._take(piece)
        answers = list(self._answers.values())
        document = self._shape.envelope([self._shape.whole(answer) for answer in answers], first.note, chunk=False)
        self._done()
        return {**document, "usage": usage(answers), "ownlm": first.note.to_json()}

    async def _events(self, run: Run[Piece], first: Piece, include_usage: bool) -> AsyncIterator[str]:
        tail: Json = {"usage": None} if include_usage else {}
        beside: Json = {"ownlm": first.note.to_json()}  # in the first chunk only
        finished = False
        try:
            async for piece in _chain(first, run):
                for choice in self._chunks(piece):
                    yield _event({**self._shape.envelope([choice], piece.note, chunk=True), **tail, **beside})
                    beside = {}
            finished = True
            answers = list(self._answers.values())
            if include_usage:
                document = self._shape.envelope([], first.note, chunk=True)
                yield _event({**document, "usage": usage(answers)})
            yield "data: [DONE]\n\n"
            self._done()
        except Exception as error:
            finished = True
            status, document = describe(error)
            if status >= 500:
                log.error("an answer broke off", exc_info=error)
            yield _event(document)
        finally:
            run.cancel()
            if not finished:
                self._context.metrics.cancelled.labels(self._shape.model).inc()

    def _chunks(self, piece: Piece) -> Iterator[Json]:
        if piece.ask.choice not in self._answers:
            opening = self._shape.opening(piece.ask)
            if opening is not None:
                yield opening
        answer = self._take(piece)
        event = piece.event
        yield self._shape.delta(answer, event) if isinstance(event, TextDelta) else self._shape.ending(answer)

    def _take(self, piece: Piece) -> Answer:
        answer = self._answers.setdefault(piece.ask.choice, Answer(piece.ask))
        answer.add(piece)
        return answer

    def _first(self, note: Note) -> None:
        metrics, model = self._context.metrics, self._shape.model
        metrics.first_token.labels(model).observe(time.perf_counter() - self._started)
        if note.familiarity is not None and note.familiarity.unlike_training:
            metrics.unlike_training.labels(model).inc()

    def _done(self) -> None:
        metrics, model = self._context.metrics, self._shape.model
        counts = usage(list(self._answers.values()))
        metrics.prompt_tokens.labels(model).inc(counts["prompt_tokens"])
        metrics.completion_tokens.labels(model).inc(counts["completion_tokens"])
        metrics.duration.labels(model).observe(time.perf_counter() - self._started)


class EventStream(StreamingResponse):
    """Server-sent events; however sending ends, the run is cancelled, not when the garbage collector finds it."""

    def __init__(self, events: AsyncIterator[str], run: Run[Piece]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._run = run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.cancel()


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection first.

    Raises:
        ReaderLeft: it did.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ReaderLeft
    finally:
        working.cancel()
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chain(first: Piece, rest: Run[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def _event(document: Json) -> str:
    return f"data: {json.dumps(document, separators=(',', ':'))}\n\n"
