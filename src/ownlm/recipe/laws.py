"""A fitted scaling law as an artifact: fitted and drawn once, and used by the planner from then on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ownlm.recipe.scaling import PUBLISHED, REACH, Forecaster, ScalingLaw, Span
from ownlm.render.plots import Band, Series, scatter_png
from ownlm.runtime import atomic
from ownlm.runtime.errors import ArtifactDamaged
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Build, Workspace

if TYPE_CHECKING:
    from ownlm.recipe.fitting import Fit, Point

LAW, POINTS, DRAWING = "law.json", "points.csv", "law.png"
STAGE, LAWS, ANY = "law", "scaling-law", "any"
CODE_VERSION = 1


def fit_command(workspace: Workspace, screen: Screen, table: Path | None, corpus: str | None) -> Artifact:
    """`ownlm plan --fit`: fits a law to the workspace's base models, or to a table, and tells what it is worth.

    Raises:
        OwnLMError: too few points or too narrow a range; a table that cannot be read; no runs.
    """
    from ownlm.recipe.fitting import check, fit  # scipy is slow to import, and the planner needs none of it
    from ownlm.recipe.points import read_points, workspace_points

    settings: dict[str, Any] = {"stage": STAGE}
    inputs: dict[str, str] = {}
    if table is not None:
        points, name = read_points(table), corpus or ANY
        settings |= {"table": table.name, "sha256": sha256_of(table)}
    else:
        runs = workspace_points(workspace, corpus)
        points, name = list(runs.points.values()), runs.corpus
        inputs = {f"run-{index}": key for index, key in enumerate(sorted(runs.points), 1)}
        for label, reason in runs.left_out:
            screen.detail(f"left out: {label}: {reason}")
    settings["corpus"] = name
    check(points)  # before anything is begun that would look cut off

    def build(target: Build) -> dict[str, Any]:
        return keep(target.folder, fit(points))

    artifact, reused = workspace.make("plan", LAWS, build, inputs=inputs, settings=settings, code_version=CODE_VERSION)
    workspace.point(alias(name), artifact)
    told = read_fit(artifact)
    screen.say(sentence(told) + (" (Fitted before.)" if reused else ""))
    screen.table(("number", "value", "90 % interval"), _rows(told))
    for warning in told["warnings"]:
        screen.warn(warning)
    screen.detail(str(artifact.path / DRAWING))
    screen.next("ownlm plan --minutes 8", f"plans for {'any corpus' if name == ANY else name} use this law from now on")
    screen.result({"id": artifact.id, "path": str(artifact.path), **{k: v for k, v in told.items() if k != "draws"}})
    return artifact


def find_law(workspace: Workspace, corpus: str | None) -> Artifact | None:
    """The law fitted last for this corpus (a name), else the one for any; None where there is none."""
    aliases = workspace.aliases()
    for name in (corpus, ANY):
        if name is not None and (identifier := aliases.get(alias(name))):
            return workspace.by_id(identifier)
    return None


def alias(corpus: str) -> str:
    """What the law for a corpus is called in the workspace."""
    return f"{LAWS}-{corpus}"[:120]


def read_fit(artifact: Artifact) -> dict[str, Any]:
    """What `law.json` holds.

    Raises:
        ArtifactDamaged: it cannot be read.
    """
    try:
        data: dict[str, Any] = json.loads(artifact.file(LAW).read_text("utf-8"))
        _law(data)
        return data
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{artifact.path / LAW} cannot be read ({error}). Fit it again.") from error


def forecaster(artifact: Artifact) -> Forecaster:
    """The artifact's law, continued by the published one."""
    return Forecaster(_law(read_fit(artifact)), PUBLISHED)


def sentence(told: dict[str, Any]) -> str:
    """What was fitted, and how far it may be trusted."""
    law = _law(told)
    size, text = law.seen_parameters, law.seen_bytes
    return (
        f"Fitted to {told['points']} runs of {size.low / 1e6:.3g} to {size.high / 1e6:.3g} million parameters on "
        f"{text.low / 1e6:.3g} to {text.high / 1e6:.3g} MB. Each run is forecast by the others to within "
        f"{told['leave_one_out']:.1%} on average, {told['worst']:.1%} at worst; up to {REACH:g} times beyond these "
        "ranges it is believed, with a wider interval, and further on the published law continues it."
    )


def keep(folder: Path, found: Fit) -> dict[str, Any]:
    """Writes the law, its points and its drawing; returns the artifact's metrics."""
    from ownlm.recipe.points import write_points

    law = dataclasses.asdict(found.law)
    draws = law.pop("draws")
    told = {
        "law": law,
        "points": len(found.points),
        "intervals": found.intervals,
        "residuals": found.residuals,
        "left_out": found.left_out,
        "leave_one_out": found.typical_error,
        "worst": max(map(abs, found.left_out)),
        "borrowed": found.borrowed,
        "warnings": found.warnings,
        "draws": draws,
    }
    atomic.write_json(folder / LAW, told)
    write_points(folder / POINTS, list(found.points))
    dots, curves = drawing(found)
    y_label = "held-out bits per byte"
    (folder / DRAWING).write_bytes(scatter_png(dots, curves, "text read, MB (repeats discounted)", y_label))
    return {key: told[key] for key in ("points", "leave_one_out", "worst", "borrowed")} | {
        key: round(getattr(found.law, key), 5) for key in ("floor", "a", "alpha", "b", "beta")
    }


def drawing(found: Fit, most: int = 4) -> tuple[list[Series], list[Band]]:
    """The points in at most `most` groups of like size, and for each group's middle size the law with its interval."""
    points = sorted(found.points, key=lambda point: point.parameters)
    groups: list[list[Point]] = [[points[0]]]
    for before, point in itertools.pairwise(points):
        if point.parameters > 1.3 * before.parameters and len(groups) < most:
            groups.append([])
        groups[-1].append(point)
    seen, told = found.law.seen_bytes, Forecaster(found.law)
    grid = np.geomspace(seen.low / REACH, seen.high * REACH, 60)
    dots, curves = [], []
    for group in groups:
        size = group[len(group) // 2].parameters
        dots.append(Series("", [each.useful / 1e6 for each in group], [each.bits_per_byte for each in group]))
        said = [told.estimate(size, useful, useful) for useful in grid]
        curves.append(
            Band(
                f"{size / 1e6:.3g}M parameters", [each / 1e6 for each in grid], [each.bits_per_byte for each in said],
                [each.low for each in said], [each.high for each in said],
            )
        )  # fmt: skip
    return dots, curves


def _rows(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name, (low, high) in told["intervals"].items():
        interval = "borrowed from the published law" if name in told["borrowed"] else f"{low:.3g} to {high:.3g}"
        rows.append((name, f"{told['law'][name]:.4g}", interval))
    return rows


def _law(data: dict[str, Any]) -> ScalingLaw:
    fields = {**data["law"], "draws": tuple(tuple(draw) for draw in data["draws"])}
    fields |= {name: Span(**fields[name]) for name in ("seen_parameters", "seen_bytes")}
    return ScalingLaw(**fields)
