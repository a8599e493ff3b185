"""`ownlm align`: preference pairs in, an aligned model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import OwnModelArgument, existing_file, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    model: OwnModelArgument,
    pairs: Annotated[Path, typer.Option(help="A file of preference pairs, one JSON object a line.")],
    minutes: Annotated[float, typer.Option(help="Time for training.")] = 1,
    name: Annotated[str | None, typer.Option(help="What to call the new model.")] = None,
) -> None:
    """Align a model with preference pairs (DPO)."""
    existing_file(pairs, "a file of pairs (JSON lines)")
    from ownlm.recipe.own_choices import align_pairs

    aligned = align_pairs(model, pairs, workspace(), screen, minutes, name)
    screen.next(f"ownlm chat {aligned.name}", f"or compare it with {model}")
    screen.result({"kind": aligned.kind, "name": aligned.name, "id": aligned.id, "metrics": aligned.metrics})
