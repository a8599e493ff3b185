"""An answer that grows on a page while the model writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from ownlm.engine.request import Event, Finished, TextDelta
from ownlm.runtime.errors import OwnLMError
from ownlm.studio.answer import AnswerView

FRAME = 0.06
"""Seconds between two drawings: an eye sees no more, and the browser has less to do."""


@dataclass
class Written:
    """How an answer ended: `end` is None while it is written and where it was stopped."""

    text: str = ""
    end: Finished | None = None
    seconds: float = 0.0

    def sentence(self) -> str:
        """Count, speed and reason."""
        if self.end is None:
            return f"Stopped after {self.seconds:.1f} s"
        tokens = self.end.usage.completion_tokens
        why = {"stop": "ended by itself", "length": "reached the limit", "cancelled": "stopped"}[self.end.reason]
        rate = f" · {tokens / self.seconds:,.0f} tokens/s" if self.seconds > 0.05 else ""
        return f"{tokens:,} tokens · {self.seconds:.1f} s{rate} · {why}"


async def write(events: AsyncIterator[Event], view: AnswerView, written: Written | None = None) -> Written:
    """Shows the events as they come. Cancelling the task stops the model; what was written stays, also in `written`.

    Raises:
        OwnLMError: what the model refuses.
    """
    written = written or Written()
    stream: Any = events  # an asynchronous generator, which its type does not tell
    started = drawn = time.monotonic()
    view.show("", True)
    try:
        async with aclosing(stream):
            async for event in stream:
                if isinstance(event, TextDelta):
                    written.text += event.text
                    if time.monotonic() - drawn > FRAME:
                        drawn = time.monotonic()
                        view.show(written.text, True)
                else:
                    written.end = event
    finally:
        written.seconds = time.monotonic() - started
        view.show(written.text, False)
    return written


class Jobs:
    """The work that one open page has started; it ends when the page is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        ui.context.client.on_delete(self.stop)

    @property
    def busy(self) -> bool:
        """Whether something is running."""
        return bool(self._tasks)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `work` beside the page, in the place of the page where this is called."""
        slot = ui.context.slot

        async def inside() -> None:
            with slot:
                await work()

        task = asyncio.get_running_loop().create_task(inside())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Cancels everything."""
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def sentence(error: Exception) -> str:
    """What a visitor is told of an error; details of those that nobody expected stay in the server's log."""
    if isinstance(error, OwnLMError):
        return str(error)
    return f"Something unexpected happened ({type(error).__name__}); the server's log tells more."
