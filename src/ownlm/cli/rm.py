"""`ownlm rm`: deletes an artifact."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ownlm.cli.common import IdArgument, size_text, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    identifier: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even when other artifacts were made from it.")] = False,
) -> None:
    """Remove an artifact. Refuses while others were made from it, and asks before it deletes."""
    place = workspace()
    artifact = place.resolve(identifier)
    users = [each for each in place.artifacts() if artifact.id in each.inputs.values()]
    if users and not force:
        listed = ", ".join(f"{each.kind} {each.label}" for each in users)
        raise OwnLMError(
            f"{artifact.kind} {artifact.label} stays: {listed} {'was' if len(users) == 1 else 'were'} made from it. "
            "Remove those first, or add --force."
        )
    size = size_text(sum(file.size for file in artifact.files.values()))
    if not yes:
        if not sys.stdin.isatty() or screen.json_mode:
            raise OwnLMError(f"Removing {artifact.label} ({size}) needs a yes: add --yes.")
        if not typer.confirm(f"Remove {artifact.kind} {artifact.label} ({size})?"):
            raise typer.Exit(0)
    place.remove(artifact)
    screen.say(f"Removed {artifact.kind} {artifact.label}; {size} are free again.")
    screen.next("ownlm ls", "what is left")
    screen.result({"removed": artifact.id, "path": str(artifact.path)})
