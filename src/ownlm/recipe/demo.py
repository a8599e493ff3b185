"""The built-in recipe of `ownlm demo`."""

from __future__ import annotations

from pathlib import Path

from ownlm.recipe.schema import PYTHON, Recipe


def demo_recipe(directory: Path | None = None) -> Recipe:
    """This machine's Python library and packages, or the documents in `directory`, to a model called first-model."""
    return Recipe(name="first-model", sources=(PYTHON,) if directory is None else (str(directory.absolute()),))
