"""`ownlm plan`: size, tokens, time and loss, forecast before any training."""

from __future__ import annotations

from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    minutes: Annotated[float, typer.Option(help="The budget for the whole chain.")] = 8,
    corpus: Annotated[str | None, typer.Option(help="A corpus's name or id; the newest otherwise.")] = None,
) -> None:
    """Measure this machine for a few seconds, and forecast what a budget buys."""
    from ownlm.recipe.planner import plan_command

    plan_command(workspace(), screen, minutes, corpus)
