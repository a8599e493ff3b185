"""`ownlm tokenizer`: how text becomes tokens."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.cli.data import newest
from ownlm.cli.main import new_app
from ownlm.runtime.progress import Screen

SAMPLE = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n"

app = new_app(help="Look at how text becomes tokens.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at how text becomes tokens."""


@app.command("show")
@verb
def show(
    screen: Screen,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A tokenizer; the newest without one.")] = None,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="A text to cut; - reads stdin.")] = None,
) -> None:
    """Show a tokenizer, and a text cut into its tokens."""
    from ownlm.data.tokenizer import Tokenizer

    artifact = newest(workspace(), "tokenizer", name)
    tokenizer = Tokenizer.load(artifact.path)
    sample = sys.stdin.read() if text == "-" else text if text is not None else SAMPLE
    ids = tokenizer.encode(sample)
    pieces = [tokenizer.decode([token]) for token in ids]
    size = len(sample.encode("utf-8"))
    screen.say(f"tokenizer {artifact.label}: {tokenizer.vocab_size:,} tokens, special: {', '.join(tokenizer.special)}.")
    screen.say(f"{size:,} bytes are {len(ids):,} tokens ({size / max(1, len(ids)):.2f} bytes a token):")
    screen.detail("│".join(visible(piece) for piece in pieces))
    screen.next("ownlm complete first-model 'def fibonacci(n):'", "the tokens at work")
    screen.result({
        "id": artifact.id, "vocab_size": tokenizer.vocab_size, "special": tokenizer.special,
        "tokens": ids, "pieces": pieces, "bytes": size, "metrics": artifact.metrics,
    })  # fmt: skip


def visible(piece: str) -> str:
    """A token's text with line ends, tabs and spaces that one can see."""
    return piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")
