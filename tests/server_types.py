"""A server in a thread of the test, and a model that needs no training."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from ownlm.data.message import Message
from ownlm.engine.request import (
    Completion,
    Event,
    Finished,
    ModelFacts,
    SamplingParams,
    TextDelta,
    TextScore,
    TokenLogprob,
    Usage,
)  # fmt: skip
from ownlm.runtime.errors import ContextOverflow
from ownlm.serve.run import listen


@dataclass
class Clock:
    """A model that counts: `one two three ...`, a word a token, beginning after the prompt's number of words.

    It honours `max_tokens`, `stop`, `logprobs` and `seed` (the first word tells it), and remembers what it did.
    """

    name: str = "clock"
    context: int = 50
    words: int = 5
    pause: float = 0.0
    heldout: float | None = 1.0
    bits_of_prompt: float = 1.5
    params: list[SamplingParams] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    steps: int = 0
    busy: int = 0
    busiest: int = 0
    closed: threading.Event = field(default_factory=threading.Event)
    fail_at: int | None = None

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(self.name, f"{self.name}-id", self.context, heldout_bits_per_byte=self.heldout)

    def count_tokens(self, prompt: str | Sequence[int] | Sequence[Message]) -> int:
        if isinstance(prompt, str):
            return len(prompt.split())
        return sum(len(each.text.split()) if isinstance(each, Message) else 1 for each in prompt)

    def stream(self, prompt: str | Sequence[int] | Sequence[Message], params: SamplingParams) -> Iterator[Event]:
        count = self.count_tokens(prompt)
        self.params.append(params)
        self.asked.append(prompt)
        if count >= self.context:
            raise ContextOverflow(count, self.context)
        return self._stream(count, params)

    def _stream(self, count: int, params: SamplingParams) -> Iterator[Event]:
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            most = min(params.max_tokens, self.context - count)
            for index in range(min(self.words, most)):
                if index == self.fail_at:
                    raise RuntimeError("the secret of the house")
                time.sleep(self.pause)
                self.steps += 1
                word = f"seed{params.seed} " if index == 0 and params.seed is not None else f"w{index} "
                if any(stop in word for stop in params.stop):
                    yield Finished("stop", Usage(count, index))
                    return
                yield TextDelta(word, self._logprobs(word, params))
            yield Finished("length" if most <= self.words else "stop", Usage(count, min(self.words, most)))
        finally:
            self.busy -= 1
            self.closed.set()

    @staticmethod
    def _logprobs(word: str, params: SamplingParams) -> tuple[TokenLogprob, ...]:
        if params.logprobs is None:
            return ()
        top = [(word, word.encode(), -0.1), ("no", b"no", -2.0)]
        return (TokenLogprob(word, word.encode(), -0.1, tuple(top[: params.logprobs])),)

    def generate(self, prompts: Sequence[Any], params: SamplingParams) -> list[Completion]:
        raise NotImplementedError

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        return [
            TextScore((1,), (-self.bits_of_prompt * len(text.encode()) * math.log(2),), len(text.encode()))
            for text in texts
        ]


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a free port of this machine, in a thread; gives the address."""
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
