"""The bridge between the event loop and the models, whose work blocks: each request runs in a thread of its own.

The thread pushes what the model yields into the loop, so that a slow reader does not hold the model, and looks
between two events whether anybody still wants them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ownlm.data.message import Message
from ownlm.engine.request import Event, LanguageModel, SamplingParams
from ownlm.serve.models import ModelSet
from ownlm.serve.turns import Turns

T = TypeVar("T")
Prompt = str | Sequence[int] | Sequence[Message]
THREADS = 16
"""As many models can work at once; each of them on one request."""


@dataclass(frozen=True)
class _End:
    """The last thing in a run's queue: why it ended (None: by itself)."""

    error: BaseException | None = None


class Run(Generic[T]):
    """What a model yields, as an asynchronous iterator; `cancel` stops the model before its next event."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T | _End] = asyncio.Queue()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody wants the rest. May be called from anywhere, any number of times."""
        self._cancelled.set()

    def __aiter__(self) -> Run[T]:
        return self

    async def __anext__(self) -> T:
        try:
            item = await self._queue.get()
        except BaseException:
            self.cancel()
            raise
        if isinstance(item, _End):
            self._queue.put_nowait(item)  # whoever asks again gets the same answer
            if item.error is not None:
                raise item.error
            raise StopAsyncIteration
        return item

    def work(self, models: ModelSet, name: str, iterate: Callable[[LanguageModel], Iterator[T]]) -> None:
        """Runs in the thread: opens the model, hands its events to the loop, and closes the iterator when cancelled."""
        end = _End()
        try:
            if not self._cancelled.is_set():
                self._forward(iterate(models.open(name)))
        except BaseException as error:  # whatever it is, the waiting request must hear of it
            end = _End(error)
        self._put(end)

    def _forward(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                if self._cancelled.is_set():
                    return
                self._put(item)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _put(self, item: T | _End) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server is going down
            self.cancel()


class Gateway:
    """All work for models passes here: in turn, off the event loop, and cancelled when nobody waits for it."""

    def __init__(self, models: ModelSet, max_waiting: int = 64) -> None:
        self._models, self._max_waiting = models, max_waiting
        self._turns: dict[str, Turns] = {}
        self._running: set[Run[Any]] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="model")

    def waiting(self) -> dict[str, int]:
        """How many requests wait for each model that was asked for."""
        return {name: turns.waiting for name, turns in self._turns.items()}

    async def run(self, name: str, iterate: Callable[[LanguageModel], Iterator[T]]) -> Run[T]:
        """Waits for the model's turn, then runs `iterate(model)` in a thread. The caller cancels what it leaves unread.

        The turn ends when the thread does, so that the next request never meets a model that is still busy.

        Raises:
            ModelNotFound: the name is not served.
            ServerBusy: too many wait for this model.
        """
        turns = self._turns.setdefault(self._models.check(name), Turns(self._max_waiting))
        await turns.take()
        try:
            run: Run[T] = Run()
            future = asyncio.get_running_loop().run_in_executor(self._threads, run.work, self._models, name, iterate)
        except BaseException:
            turns.give_back()
            raise
        self._running.add(run)

        def ended(_: object) -> None:
            turns.give_back()
            self._running.discard(run)

        future.add_done_callback(ended)
        return run

    async def stream(self, name: str, prompt: Prompt, params: SamplingParams) -> AsyncIterator[Event]:
        """The model's events. Closing the iterator (`contextlib.aclosing`) stops the model within a step.

        Raises:
            ModelNotFound, ServerBusy, ContextOverflow, UnsupportedParameter: before the first event.
        """
        run = await self.run(name, lambda model: model.stream(prompt, params))
        try:
            async for event in run:
                yield event
        finally:
            run.cancel()

    async def call(self, name: str, function: Callable[[LanguageModel], T]) -> T:
        """`function(model)`, in the model's turn."""
        run = await self.run(name, lambda model: iter([function(model)]))
        try:
            return await anext(run)
        finally:
            run.cancel()

    def close(self) -> None:
        """Cancels what runs; used when the server stops."""
        for run in list(self._running):
            run.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
