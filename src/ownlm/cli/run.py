"""`ownlm run`: a recipe file, from documents to a measured model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ownlm.cli.common import existing_file, time_text, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe.")],
    minutes: Annotated[float | None, typer.Option(help="Time for the whole chain, instead of the recipe's.")] = None,
) -> None:
    """Run a recipe: the whole chain. What is built is reused, what was cut off goes on where it stopped."""
    existing_file(recipe, "a recipe in YAML")
    from ownlm.recipe.schema import load_recipe

    budget = [] if minutes is None else ["--minutes", f"{minutes:.15g}"]
    run_and_tell(screen, load_recipe(recipe), minutes=minutes, command=["run", str(recipe), *budget])


def run_and_tell(screen: Screen, recipe: Any, **options: Any) -> None:
    """Runs a recipe, then says what there is now and what to do with it."""
    from ownlm.recipe.runner import run

    place = workspace()
    result = run(recipe, place, screen, **options)
    done = f"{result.built} built, {result.reused} reused, in {time_text(result.seconds)}"
    screen.say(f"\nDone: {done}.")
    models = [each for each in result.artifacts.values() if each.kind == "model"]
    name = next((alias for alias, i in place.aliases().items() if models and i == models[-1].id), None)
    name = name or (models[-1].name if models else None)
    if name:
        screen.next(f"ownlm chat {name}", f"or `ownlm serve {name}` for the API and the Studio")
    screen.result({
        "artifacts": {role: {"kind": a.kind, "name": a.name, "id": a.id, "metrics": a.metrics}
                      for role, a in result.artifacts.items()},
        "built": result.built, "reused": result.reused, "seconds": result.seconds, "model": name,
    })  # fmt: skip
