"""`ownlm import`: a model of others' comes into the workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from ownlm.cli.common import verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf:ORG/NAME, a model folder, or a .gguf file.")],
    name: Annotated[str, typer.Option("--name", help="What to call it; else as its makers do.")] = "",
) -> None:
    """Bring a model in as an artifact: checked, with its licence and origin recorded."""
    from ownlm.engine.importing import import_model

    found = import_model(source, workspace(), screen, name)
    artifact, licence = found.artifact, found.licence
    called = name or artifact.name
    state = "is here already" if found.reused else "is here now"
    parameters, context = artifact.metrics["parameters"], artifact.metrics["context"]
    screen.say(f"{called} {state}: {parameters:,} parameters, a context of {context:,} tokens.")
    screen.detail(str(artifact.path))
    stated = f" (says its {licence.stated_in})" if licence.stated_in else "; look for it before you use the model"
    screen.say(f"Licence: {licence.name}{stated}")
    for note in found.notes:
        screen.warn(note)
    screen.next(f"ownlm chat {called}", "ask it something")
    screen.result({**artifact.to_json(), "path": str(artifact.path), "reused": found.reused})
