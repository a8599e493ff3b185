"""`ownlm demo`: the built-in recipe, on this machine's own Python packages or on a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.cli.run import run_and_tell
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

MINUTES = 8
"""For the whole chain, where the command names no time."""


@verb
def command(
    screen: Screen,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A folder of your own; without it, this machine's Python.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for the whole chain.")] = MINUTES,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")] = False,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Watch the training in the browser.")] = True,
    port: Annotated[int | None, typer.Option(help="The port of the page to watch.")] = None,
) -> None:
    """Build a language model from nothing, and show it off: corpus, tokenizer, training, alignment, report."""
    if directory is not None and not directory.is_dir():
        raise OwnLMError(f"{directory} is not a folder. Name one with documents in it, or none for the built-in demo.")
    from ownlm.recipe.demo import demo_recipe

    recipe = demo_recipe(directory)
    what = f"the documents in {directory}" if directory else "the Python sources that are on this machine"
    screen.say(
        f"This reads {what}, and trains a model of it for about {minutes:g} minutes. It writes into "
        f"{workspace().root}. Nothing leaves this machine."
    )
    if not yes and sys.stdin.isatty() and not screen.json_mode and not typer.confirm("Start?", default=True):
        raise typer.Exit(0)
    watch = browser and sys.stdout.isatty() and not screen.json_mode
    again = ["demo", *([str(directory)] if directory else [])]
    again += ["--minutes", f"{minutes:.15g}"] if minutes != MINUTES else []
    run_and_tell(screen, recipe, minutes=minutes, open_browser=watch, port=port, command=again)
