"""`recipe.yaml`: what to read, how long it may take, and what to make of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.data.corpus import CorpusSettings
from ownlm.evaluate.yaml_lines import Source as Yaml
from ownlm.evaluate.yaml_lines import Step, read_yaml
from ownlm.recipe.hyperparameters import Hyperparameters, value_of
from ownlm.runtime.errors import BudgetError, RecipeError
from ownlm.store.workspace import NAME

SMALLEST_MINUTES = 1.0
PYTHON = "python"
"""The source that stands for this machine's own Python library and packages."""


@dataclass(frozen=True)
class CorpusPart:
    """`max_megabytes` None takes what suits the budget; `heldout` is the share of the bytes kept for measuring.

    `rules` are entry points of `ownlm.rules` that every document must pass.
    """

    max_megabytes: float | None = None
    heldout: float = 0.05
    rules: tuple[str, ...] = ()

    def settings(self, minutes: float, seed: int) -> CorpusSettings:
        """The corpus settings for a budget: a model reads about 1 MB a minute once, and more text costs no time."""
        megabytes = self.max_megabytes or max(4.0, 1.5 * minutes)
        return CorpusSettings(round(megabytes * 1e6), self.heldout, seed=seed, rules=self.rules)


@dataclass(frozen=True)
class AlignPart:
    """`beta` and `chosen_weight` as in `DpoObjective`, `samples` the answers sampled a prompt.

    `objective` is an entry point of `ownlm.objectives` that is made as `DpoObjective` is.
    """

    objective: str = "dpo"
    beta: float = 0.1
    samples: int = 6
    chosen_weight: float = 1.0
    temperature: float = 0.8


@dataclass(frozen=True)
class Recipe:
    """One run of the whole chain.

    `name` names the artifacts and the final alias; `sources` are folders, or "python" for this machine's own Python
    library and packages; `kits` say how instruction examples and verifiers are made (see `ownlm.recipe.kit`); `suite`
    is a YAML file of one's own for the evaluation (None: the kit's).
    """

    name: str
    sources: tuple[str, ...]
    minutes: float = 8.0
    seed: int = 0
    kits: tuple[str, ...] = ("python", "prose")
    suite: str | None = None
    corpus: CorpusPart = field(default_factory=CorpusPart)
    align: AlignPart = field(default_factory=AlignPart)
    path: Path | None = None
    pretrain: Hyperparameters = field(default_factory=Hyperparameters)


_PARTS: dict[str, type[Any]] = {"corpus": CorpusPart, "pretrain": Hyperparameters, "align": AlignPart}
_NUMBERS = {
    "minutes": (0, 1e6), "seed": (0, 2**31), "max_megabytes": (0.01, 1e9), "heldout": (0.001, 0.5), "beta": (1e-4, 100),
    "samples": (2, 64), "chosen_weight": (0, 100), "temperature": (0.01, 10),
}  # fmt: skip
_WHOLE = {"seed", "samples"}


def check_budget(minutes: float) -> None:
    """Raises BudgetError for less time than the smallest chain needs, and for what is no number of minutes."""
    if not SMALLEST_MINUTES <= minutes < math.inf:
        raise BudgetError(
            f"{minutes:g} minutes are no budget: the whole chain, however small, needs {SMALLEST_MINUTES:g}. "
            "Try --minutes 2."
        )


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        RecipeError: no such file, no YAML, an unknown key (with file, line and the nearest valid key), a value of the
            wrong kind or out of range.
    """
    yaml = read_yaml(path)
    keys = {field.name for field in dataclasses.fields(Recipe)} - {"path"}
    yaml.check_keys((), keys)
    data: dict[str, Any] = {"name": path.stem, **yaml.data}
    if not data.get("sources"):
        raise RecipeError(f"{path}: a recipe needs `sources`: a list of folders, or `python` for this machine's own.")
    for key in data:
        data[key] = _value(yaml, (key,), key, data[key])
    folder = path.parent
    data["sources"] = tuple(s if s == PYTHON else str(folder / Path(s).expanduser()) for s in data["sources"])
    if data.get("suite"):
        data["suite"] = str(folder / Path(data["suite"]).expanduser())
    return Recipe(**data, path=path)


def _value(yaml: Yaml, at: tuple[Step, ...], key: str, value: Any) -> Any:
    if key in _PARTS:
        part = _PARTS[key]
        yaml.check_keys(at, {field.name for field in dataclasses.fields(part)})
        read = _hyperparameter if part is Hyperparameters else _value
        return part(**{name: read(yaml, (*at, name), name, each) for name, each in value.items()})
    if key in ("sources", "kits", "rules"):
        items = [value] if isinstance(value, str) else value
        named = isinstance(items, list) and all(isinstance(item, str) and item for item in items)
        if not named or (not items and key != "rules"):
            raise yaml.error(at, f"{key} takes a list of names.")
        return tuple(items)
    if key in ("name", "suite", "objective"):
        if key == "suite" and value is None:
            return None
        if not isinstance(value, str):
            raise yaml.error(at, f"{key} takes a text, not {value!r}.")
        if key == "name" and not NAME.fullmatch(value):
            raise yaml.error(at, f"name takes letters, digits, '.', '_', '+' and '-', 120 at most, not {value!r}.")
        return value
    if value is None and key == "max_megabytes":
        return None
    low, high = _NUMBERS[key]
    whole = key in _WHOLE
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise yaml.error(at, f"{key} takes {kind} between {low:g} and {high:g}, not {value!r}.")
    return value


def _hyperparameter(yaml: Yaml, at: tuple[Step, ...], key: str, value: Any) -> Any:
    try:
        return value_of(key, value)
    except ValueError as error:
        raise yaml.error(at, str(error)) from None
