"""`ownlm complete`: a text, continued."""

from __future__ import annotations

import sys
from typing import Annotated

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
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    model: ModelArgument,
    text: Annotated[str | None, typer.Argument(help="What to continue; - or a pipe reads standard input.")] = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.7,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    stop: Stop = None,
    precision: Precision = "auto",
    quantize: Quantize = None,
) -> None:
    """Continue a text, word by word as the model writes it."""
    params = sampling(
        stop, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed
    )
    prompt = read_text(text)
    from ownlm.cli.streaming import answer_json, stream_answer, tell_end
    from ownlm.engine.open import Weights, open_model

    opened = open_model(model, workspace(), Weights(precision, quantize))
    # On a terminal the prompt stands before its continuation; a pipe gets the continuation alone.
    answer = stream_answer(screen, opened, prompt, params, echo=prompt if sys.stdout.isatty() else "")
    tell_end(answer)
    screen.result({"prompt": prompt, **answer_json(opened, answer)})


def read_text(given: str | None) -> str:
    """The argument, or standard input for `-` and for pipes.

    Raises:
        OwnLMError: there is neither.
    """
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise OwnLMError("There is no text to continue: give it in quotes after the model's name, or through a pipe.")
    return sys.stdin.read()
