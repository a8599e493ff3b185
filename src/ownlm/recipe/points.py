"""The points that a scaling law is fitted to: a table of one's own, or the finished runs of the workspace."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.recipe.fitting import Point
from ownlm.runtime.errors import ArtifactNotFound, OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

COLUMNS = ("parameters", "bytes", "bits_per_byte")
HEADER = ("name", "parameters", "bytes", "distinct", "bits_per_byte")


@dataclass(frozen=True)
class Runs:
    """The points of base models that read one corpus, by artifact id, and the others with the reason."""

    corpus: str
    points: dict[str, Point]
    left_out: tuple[tuple[str, str], ...]


def read_points(path: Path) -> list[Point]:
    """A CSV with the columns parameters, bytes, bits_per_byte, and optionally distinct (bytes) and name.

    Raises:
        OwnLMError: no such file, a column missing or unknown, or a value that is no number above zero, with its line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [each.strip() for each in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [name for name in COLUMNS if name not in columns]
            unknown = [name for name in columns if name not in HEADER]
            if missing or unknown:
                trouble = f"has no column {missing[0]}" if missing else f"has an unknown column {unknown[0]!r}"
                raise OwnLMError(f"{path} {trouble}: it needs {', '.join(COLUMNS)}, and may have distinct and name.")
            return [_point(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OwnLMError(f"{path} cannot be read as a table of points ({error}). Give a CSV file in UTF-8.") from error


def write_points(path: Path, points: list[Point]) -> None:
    """The reverse of `read_points`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for each in points:
            writer.writerow((each.name, each.parameters, each.read, each.distinct, each.bits_per_byte))


def workspace_points(workspace: Workspace, corpus: str | None) -> Runs:
    """The finished base models that read `corpus` (a name; the one with the most runs otherwise).

    Corpora of one name count as one: they are samples of the same sources, larger for larger budgets.

    Raises:
        ArtifactNotFound: no base model was trained here, or none on that corpus.
    """
    found: dict[str, tuple[str, Point]] = {}
    left_out = []
    artifacts = {each.id: each for kind in ("tokens", "corpus") for each in workspace.artifacts(kind)}
    for model in workspace.artifacts("model"):
        if model.settings.get("stage") != "base":
            continue
        named = _named(model, artifacts)
        if isinstance(named, str):
            left_out.append((model.label, named))
        else:
            found[model.id] = named
    names = Counter(name for name, _ in found.values())
    if not names:
        raise ArtifactNotFound(
            "There are no finished base models to fit a scaling law to. `ownlm run` or `ownlm demo` trains one; or "
            "give a table: `ownlm plan --fit POINTS.csv`."
        )
    chosen = corpus or names.most_common(1)[0][0]
    if chosen not in names:
        raise ArtifactNotFound(
            f"No base model was trained on the corpus '{chosen}'. There are: {', '.join(sorted(names))}."
        )
    left_out += [(point.name, f"read the corpus {name}") for name, point in found.values() if name != chosen]
    points = {key: point for key, (name, point) in found.items() if name == chosen}
    return Runs(chosen, points, tuple(left_out))


def _named(model: Artifact, artifacts: dict[str, Artifact]) -> tuple[str, Point] | str:
    """A run's corpus and its point, or why it is none."""
    if others := sorted({"init", "teacher"} & {*model.inputs, *model.settings}):
        return f"it did not learn from its corpus alone ({others[0]})"
    tokens = artifacts.get(model.inputs.get("tokens", ""))
    if tokens is None:
        return "its tokens were removed"
    corpus = artifacts.get(tokens.inputs.get("corpus", ""))
    metrics: dict[str, Any] = {**tokens.metrics, **model.metrics}
    try:
        read = float(metrics["tokens"]) * float(metrics["bytes_per_token"])
        values = (metrics["parameters"], read, metrics["train_bytes"], metrics["heldout_bits_per_byte"])
        parameters, read, distinct, bits = (float(value) for value in values)
    except (KeyError, TypeError, ValueError):
        return "its metrics lack parameters, tokens or held-out bits per byte"
    if not all(0 < value < math.inf for value in (parameters, read, distinct, bits)):
        return "its metrics are not above zero"
    return (corpus or tokens).name, Point(parameters, read, distinct, bits, model.label)


def _point(path: Path, line: int, row: dict[str, Any]) -> Point:
    def number(column: str) -> float:
        text = str(row.get(column) or "").strip()
        try:
            value = float(text.replace("_", ""))
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise OwnLMError(f"{path}, line {line}: {column} takes a number above zero, not {text!r}.")
        return value

    read = number("bytes")
    distinct = number("distinct") if str(row.get("distinct") or "").strip() else read
    return Point(number("parameters"), read, distinct, number("bits_per_byte"), str(row.get("name") or f"line {line}"))
