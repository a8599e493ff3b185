"""`ownlm chat`: a conversation in the terminal, or one question through a pipe."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ownlm.cli.common import (
    MaxTokens,
    MinP,
    ModelArgument,
    Precision,
    Quantize,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    sampling,
    verb,
    workspace,
)  # fmt: skip
from ownlm.runtime.errors import ContextOverflow, OwnLMError
from ownlm.runtime.progress import Screen

if TYPE_CHECKING:
    from ownlm.data.message import Message
    from ownlm.engine.request import LanguageModel, SamplingParams

HELP = "/new starts over · /exit or Ctrl-D leaves · Ctrl-C stops an answer"


@verb
def command(
    screen: Screen,
    model: ModelArgument,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    stop: Stop = None,
    precision: Precision = "auto",
    quantize: Quantize = None,
    system: Annotated[str | None, typer.Option(help="Instructions before the conversation.")] = None,
) -> None:
    """Talk with a model."""
    params = sampling(
        stop, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed
    )
    piped = not sys.stdin.isatty()
    question = sys.stdin.read().strip() if piped else ""
    if piped and not question:
        raise OwnLMError("Standard input is empty: pipe a question in, or start `ownlm chat` on a terminal.")
    from ownlm.cli.streaming import answer_json, stream_answer
    from ownlm.data.message import Message
    from ownlm.engine.open import Weights, open_model

    opened = open_model(model, workspace(), Weights(precision, quantize))
    head = [Message.of("system", system)] if system else []
    if piped:
        answer = stream_answer(screen, opened, [*head, Message.of("user", question)], params)
        screen.result({"question": question, **answer_json(opened, answer)})
        return
    talk(screen, opened, head, params)


def talk(screen: Screen, model: LanguageModel, head: list[Message], params: SamplingParams) -> None:
    """The interactive loop: reads a line, streams the answer, remembers both."""
    from ownlm.cli.streaming import answer_json, stream_answer, tell_end
    from ownlm.data.message import Message

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives the prompt a history and cursor keys, where it exists)
    screen.say(f"{model.facts.name}: a context of {model.facts.context:,} tokens.")
    screen.detail(HELP)
    history = list(head)
    turns: list[dict[str, object]] = []
    while (line := read_line()) is not None:
        if line in ("/exit", "/quit", "/bye"):
            break
        if line == "/new":
            history = list(head)
            screen.detail("A new conversation.")
        elif line.startswith("/"):
            screen.detail(HELP)
        elif line:
            asked = Message.of("user", line)
            try:
                answer = stream_answer(screen, model, [*history, asked], params)
            except ContextOverflow as error:
                screen.warn(f"{error} /new starts over.")
                continue
            tell_end(answer)
            history += [asked, Message.of("assistant", answer.text)]
            turns.append({"question": line, **answer_json(model, answer)})
    screen.result({"turns": turns})


def read_line() -> str | None:
    """One line from the terminal, stripped; None at Ctrl-D or Ctrl-C."""
    try:
        return input("\n› ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None
