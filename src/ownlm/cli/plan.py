"""`ownlm plan`: size, tokens, time and loss, forecast before any training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import existing_file, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

_ELSEWHERE = "For machines that are not here"
_LAW = "Scaling law"
MINUTES = 8.0


@verb
def command(
    screen: Screen,
    points: Annotated[
        Path | None,
        typer.Argument(metavar="POINTS.csv", help="With --fit: runs of your own as a table.", show_default=False),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"The budget for the whole chain; {MINUTES:g} by default.", show_default=False)
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="A corpus's name or id; the newest otherwise.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; the one with the fastest step otherwise.")
    ] = None,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Fit a scaling law to the workspace's base models, or to a table with the columns parameters, bytes, "
            "bits_per_byte and optionally distinct (bytes) and name.",
            rich_help_panel=_LAW,
        ),
    ] = False,
    flops: Annotated[
        float | None, typer.Option(help="A budget in operations, such as 1e18.", rich_help_panel=_ELSEWHERE)
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="A GPU by name: h100, a100, rtx4090 ...", rich_help_panel=_ELSEWHERE)
    ] = None,
    hours: Annotated[float | None, typer.Option(help="How long it is rented.", rich_help_panel=_ELSEWHERE)] = None,
    dollars: Annotated[
        float | None, typer.Option(help="What it may cost: gives the number of GPUs.", rich_help_panel=_ELSEWHERE)
    ] = None,
    count: Annotated[int | None, typer.Option(help="How many GPUs.", rich_help_panel=_ELSEWHERE)] = None,
) -> None:
    """Measure this machine for a few seconds, and forecast what a budget buys."""
    given = {"minutes": minutes, "device": device, "flops": flops, "gpu": gpu}
    rented = {"hours": hours, "dollars": dollars, "count": count}
    if points is not None and not fit:
        raise OwnLMError(f"{points}: a table of runs is only read with --fit: `ownlm plan --fit {points}`.")
    if fit:
        _refuse("--fit", {**given, **rented}, "fits a law to runs that are finished")
        from ownlm.recipe.laws import fit_command

        table = None if points is None else existing_file(points, "a table of runs (CSV)")
        fit_command(workspace(), screen, table, corpus)
        return
    for name, value in rented.items():
        if value is not None and gpu is None:
            raise OwnLMError(f"--{name} is about rented GPUs: add --gpu and a name, such as --gpu h100.")
    if gpu is not None or flops is not None:
        name = "--gpu" if gpu is not None else "--flops"
        others = {key: value for key, value in given.items() if f"--{key}" != name}
        _refuse(name, others, "asks about a machine that is not here")
        from ownlm.recipe.outlook import outlook_command

        outlook_command(workspace(), screen, flops=flops, gpu=gpu, corpus=corpus, **rented)  # type: ignore[arg-type]
        return
    from ownlm.recipe.planner import plan_command

    plan_command(workspace(), screen, MINUTES if minutes is None else minutes, corpus, device=device)


def _refuse(name: str, others: Mapping[str, object], what: str) -> None:
    """
    Raises:
        OwnLMError: an option was given that would be ignored.
    """
    for other, value in others.items():
        if value is not None:
            raise OwnLMError(f"--{other} does not go with {name}, which {what}. Leave one of them out.")
