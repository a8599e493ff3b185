"""What the tests of the commands share: a command's outcome, and a model that needs no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ownlm.data.message import Message
from ownlm.engine.request import (
    Completion,
    Event,
    Finished,
    ModelFacts,
    SamplingParams,
    TextDelta,
    TextScore,
    Usage,
)  # fmt: skip
from ownlm.runtime.errors import ContextOverflow


@dataclass
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of stdout, which must be JSON."""
        return json.loads(self.out.strip().splitlines()[-1])


Command = Callable[..., Done]


@dataclass
class Parrot:
    """A model that answers with the words of its prompt, upside down, and remembers what it was asked."""

    context: int = 64
    asked: list[Any] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    interrupt_after: int | None = None
    closed: bool = False

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(name="parrot", id="0123456789ab", context=self.context)

    def count_tokens(self, prompt: Any) -> int:
        return len(self._text(prompt).split())

    def stream(self, prompt: str | Sequence[int] | Sequence[Message], params: SamplingParams) -> Iterator[Event]:
        self.asked.append(prompt)
        self.params.append(params)
        words = self._text(prompt).split()
        if len(words) > self.context:
            raise ContextOverflow(len(words), self.context)
        said = words[::-1][: params.max_tokens]
        try:
            for index, word in enumerate(said):
                if index == self.interrupt_after:
                    raise KeyboardInterrupt
                yield TextDelta(word if index == 0 else f" {word}")
            yield Finished("length" if len(said) < len(words) else "stop", Usage(len(words), len(said)))
        finally:
            self.closed = True

    def generate(self, prompts: Sequence[Any], params: SamplingParams) -> list[Completion]:
        answers = []
        for prompt in prompts:
            *deltas, end = self.stream(prompt, params)
            text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
            assert isinstance(end, Finished)
            answers.append(Completion(text, end.reason, end.usage))
        return answers

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        return [TextScore((1,) * len(text), (-1.0,) * len(text), len(text.encode())) for text in texts]

    @staticmethod
    def _text(prompt: Any) -> str:
        return prompt if isinstance(prompt, str) else prompt[-1].text
