"""Extensions: parts that OwnLM finds by name, its own and those of other packages, through entry points.

A package adds one in its `pyproject.toml`, for instance

    [project.entry-points."ownlm.scorers"]
    politeness = "my_package.politeness:scorer"
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from ownlm.runtime.errors import OwnLMError

GROUPS = ("ownlm.families", "ownlm.objectives", "ownlm.rules", "ownlm.scorers", "ownlm.tools", "ownlm.kits")


class ExtensionError(OwnLMError):
    """An extension that is not there, or that cannot be imported."""

    code = "extension_error"


def extension_names(group: str) -> list[str]:
    """The names in a group, sorted; imports nothing."""
    return sorted({point.name for point in entry_points(group=group)})


def load_extension(group: str, name: str) -> object:
    """Imports the extension `name` of `group`. Where several packages give one name, OwnLM's own comes first.

    Raises:
        ExtensionError: there is none (the nearest name is told), or importing it failed (its package is named).
    """
    points = [point for point in entry_points(group=group) if point.name == name]
    if not points:
        raise ExtensionError(_unknown(group, name))
    return _load(_first(points))


def load_extensions(group: str) -> dict[str, object]:
    """Every extension of a group by name.

    Raises:
        ExtensionError: importing one failed; the message names it and its package.
    """
    named: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        named.setdefault(point.name, []).append(point)
    return {name: _load(_first(points)) for name, points in sorted(named.items())}


def _first(points: list[EntryPoint]) -> EntryPoint:
    """OwnLM's own, where several packages give one name."""
    return min(points, key=lambda point: _package(point) != "ownlm")


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise ExtensionError(
            f"The extension '{point.name}' ({point.group}) of the package {_package(point)} cannot be loaded from "
            f"{point.value}: {type(error).__name__}: {error}. Repair or uninstall that package."
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"


def _unknown(group: str, name: str) -> str:
    known = extension_names(group)
    nearest = get_close_matches(name, known, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    listed = ", ".join(known) if known else "nothing"
    return f"There is no '{name}' in {group}.{hint} There is: {listed}."
