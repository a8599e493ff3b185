"""An answer that appears as it is written."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ownlm.data.message import Message
from ownlm.engine.request import Completion, Finished, FinishReason, LanguageModel, SamplingParams, TextDelta, Usage
from ownlm.runtime.progress import Screen


def stream_answer(
    screen: Screen, model: LanguageModel, prompt: str | Sequence[Message], params: SamplingParams, echo: str = ""
) -> Completion:
    """Streams to stdout (with --json: nothing but the result) and returns the whole answer.

    Ctrl-C ends the answer and keeps what there is of it; the reason is then "cancelled". `echo` is printed before it.
    """
    pieces: list[str] = []
    reason: FinishReason = "cancelled"
    usage = Usage(0, 0)
    events = model.stream(prompt, params)
    try:
        for event in events:
            if isinstance(event, TextDelta):
                if not pieces:
                    _write(screen, echo)
                pieces.append(event.text)
                _write(screen, event.text)
            elif isinstance(event, Finished):
                reason, usage = event.reason, event.usage
    except KeyboardInterrupt:
        close = getattr(events, "close", None)
        if close:
            close()
    text = "".join(pieces)
    if not text.endswith("\n"):
        _write(screen, "\n")
    return Completion(text=text, reason=reason, usage=usage)


def answer_json(model: LanguageModel, answer: Completion) -> dict[str, object]:
    """The answer as the commands' JSON result."""
    return {
        "model": model.facts.name, "text": answer.text, "finish_reason": answer.reason,
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens, "completion_tokens": answer.usage.completion_tokens,
        },
    }  # fmt: skip


def tell_end(answer: Completion) -> None:
    """On a terminal, says when an answer did not end by itself."""
    if not sys.stderr.isatty():
        return
    if answer.reason == "length":
        print("[cut at the token limit; --max-tokens allows more]", file=sys.stderr)
    elif answer.reason == "cancelled":
        print("[stopped]", file=sys.stderr)


def _write(screen: Screen, text: str) -> None:
    if text and not screen.json_mode:
        sys.stdout.write(text)
        sys.stdout.flush()
