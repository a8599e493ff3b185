"""Answers as the OpenAI API writes them: whole, and in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ownlm.engine.request import Finished, TextDelta, TokenLogprob
from ownlm.serve.answers import Ask, Note, Piece

Json = dict[str, Any]


@dataclass
class Answer:
    """One choice, as far as it has come."""

    ask: Ask
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: Finished | None = None

    def add(self, piece: Piece) -> None:
        """Takes one event in."""
        if isinstance(piece.event, TextDelta):
            self.text += piece.event.text
            self.logprobs += piece.event.logprobs
        else:
            self.end = piece.event


class Shape(Protocol):
    """Chat or plain completions; all methods return one entry of `choices`, or the envelope around them."""

    model: str

    def opening(self, ask: Ask) -> Json | None: ...

    def delta(self, answer: Answer, delta: TextDelta) -> Json: ...

    def ending(self, answer: Answer) -> Json: ...

    def whole(self, answer: Answer) -> Json: ...

    def envelope(self, choices: list[Json], note: Note, chunk: bool) -> Json: ...


@dataclass
class _Shape:
    """The head of every document of one request."""

    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def _head(self, prefix: str, kind: str, choices: list[Json], note: Note) -> Json:
        return {
            "id": f"{prefix}-{self.key}", "object": kind, "created": self.created, "model": self.model,
            "choices": choices, "system_fingerprint": f"ownlm-{note.model_id}",
        }  # fmt: skip


@dataclass
class ChatShape(_Shape):
    """`chat.completion` and `chat.completion.chunk`."""

    def opening(self, ask: Ask) -> Json | None:
        return self._chunk(ask, {"role": "assistant", "content": ""})

    def delta(self, answer: Answer, delta: TextDelta) -> Json:
        return self._chunk(answer.ask, {"content": delta.text}, delta.logprobs)

    def ending(self, answer: Answer) -> Json:
        return self._chunk(answer.ask, {}, reason=_reason(answer))

    def whole(self, answer: Answer) -> Json:
        return {
            "index": answer.ask.choice,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self._logprobs(answer.ask, answer.logprobs),
            "finish_reason": _reason(answer),
        }

    def envelope(self, choices: list[Json], note: Note, chunk: bool) -> Json:
        return self._head("chatcmpl", "chat.completion.chunk" if chunk else "chat.completion", choices, note)

    def _chunk(self, ask: Ask, delta: Json, logprobs: Sequence[TokenLogprob] = (), reason: str | None = None) -> Json:
        found = self._logprobs(ask, logprobs) if logprobs else None
        return {"index": ask.choice, "delta": delta, "logprobs": found, "finish_reason": reason}

    @staticmethod
    def _logprobs(ask: Ask, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if ask.params.logprobs is None:
            return None
        return {
            "content": [
                {
                    **_token(each.token, each.token_bytes, each.logprob),
                    "top_logprobs": [_token(*top) for top in each.top],
                }
                for each in logprobs
            ],
            "refusal": None,
        }


@dataclass
class CompletionShape(_Shape):
    """`text_completion`, the same whole and in chunks. With `echo` the prompt stands before the answer."""

    echo: bool = False

    def opening(self, ask: Ask) -> Json | None:
        return self._choice(ask, str(ask.prompt)) if self.echo else None

    def delta(self, answer: Answer, delta: TextDelta) -> Json:
        """`answer` holds `delta` already, so the offset of its tokens is where the ones before end."""
        before = answer.logprobs[: len(answer.logprobs) - len(delta.logprobs)]
        found = self._logprobs(answer.ask, delta.logprobs, sum(len(each.token) for each in before))
        return self._choice(answer.ask, delta.text, found)

    def ending(self, answer: Answer) -> Json:
        return self._choice(answer.ask, "", reason=_reason(answer))

    def whole(self, answer: Answer) -> Json:
        text = (str(answer.ask.prompt) if self.echo else "") + answer.text
        return self._choice(answer.ask, text, self._logprobs(answer.ask, answer.logprobs, 0), _reason(answer))

    def envelope(self, choices: list[Json], note: Note, chunk: bool) -> Json:
        return self._head("cmpl", "text_completion", choices, note)

    @staticmethod
    def _choice(ask: Ask, text: str, logprobs: Json | None = None, reason: str | None = None) -> Json:
        return {"index": ask.choice, "text": text, "logprobs": logprobs, "finish_reason": reason}

    @staticmethod
    def _logprobs(ask: Ask, logprobs: Sequence[TokenLogprob], offset: int) -> Json | None:
        if ask.params.logprobs is None:
            return None
        offsets = []
        for each in logprobs:
            offsets.append(offset)
            offset += len(each.token)
        return {
            "tokens": [each.token for each in logprobs],
            "token_logprobs": [each.logprob for each in logprobs],
            "top_logprobs": [{token: value for token, _, value in each.top} for each in logprobs],
            "text_offset": offsets,
        }


def usage(answers: Sequence[Answer]) -> Json:
    """Each prompt is counted once, however many answers it got."""
    ends = [(answer.ask.prompt_index, answer.end.usage) for answer in answers if answer.end is not None]
    prompt = sum({index: each.prompt_tokens for index, each in ends}.values())
    completion = sum(each.completion_tokens for _, each in ends)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _reason(answer: Answer) -> str:
    return "length" if answer.end is not None and answer.end.reason == "length" else "stop"


def _token(token: str, data: bytes, logprob: float) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(data)}
