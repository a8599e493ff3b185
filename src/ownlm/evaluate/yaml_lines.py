"""YAML files whose mistakes can be reported with file and line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ownlm.runtime.errors import OwnLMError

Step = str | int


@dataclass(frozen=True)
class Source:
    """A parsed YAML file; `lines` maps the path of every key and item to its line, counted from 1."""

    path: Path
    data: Any
    lines: dict[tuple[Step, ...], int]

    def error(self, at: tuple[Step, ...], message: str) -> OwnLMError:
        """`FILE, line N: message`, with the line of the nearest place that has one."""
        while at and at not in self.lines:
            at = at[:-1]
        return OwnLMError(f"{self.path}, line {self.lines.get(at, 1)}: {message}")

    def check_keys(self, at: tuple[Step, ...], allowed: Iterable[str]) -> None:
        """Raises OwnLMError for a key of the mapping at `at` that is not allowed, with the nearest one that is."""
        value, allowed = self.at(at), sorted(allowed)
        if not isinstance(value, dict):
            raise self.error(at, f"here belongs a mapping with the keys {', '.join(allowed)}.")
        for key in value:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"there is: {', '.join(allowed)}."
                raise self.error((*at, key), f"unknown key '{key}'; {hint}")

    def at(self, path: tuple[Step, ...]) -> Any:
        """The value at a path of keys and indices."""
        value = self.data
        for step in path:
            value = value[step]
        return value


def read_yaml(path: Path) -> Source:
    """Reads a file with the safe loader.

    Raises:
        OwnLMError: it cannot be read, is not UTF-8 or no YAML, or has a key twice.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise OwnLMError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise OwnLMError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    try:
        data = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise OwnLMError(f"{path}{where}: this is not YAML ({problem}).") from error
    source = Source(path, data, {})
    if node is not None:
        _collect(source, node, ())
    return source


def _collect(source: Source, node: yaml.Node, at: tuple[Step, ...]) -> None:
    source.lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            source.lines[(*at, key.value)] = key.start_mark.line + 1
            if key.value in seen:
                raise source.error((*at, key.value), f"the key '{key.value}' stands here twice.")
            seen.add(key.value)
            _collect(source, value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect(source, item, (*at, index))
