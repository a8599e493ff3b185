"""Everything that a report tells, read from the artifacts of a model's lineage and from nowhere else.

Stages that were not run leave their part empty; the page leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ownlm.report.lineage import Node, lineage
from ownlm.runtime.errors import ArtifactDamaged
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

STAGES = ("base", "instructed", "aligned")


@dataclass(frozen=True)
class Stage:
    """One training stage: its artifact and the lines of its `metrics.jsonl`."""

    name: str
    artifact: Artifact
    curve: list[dict[str, Any]]


@dataclass(frozen=True)
class Facts:
    """What is known about a model. Dicts and lists are empty where a stage is absent."""

    model: Artifact
    tree: Node
    chain: list[Artifact]
    stages: dict[str, Stage]
    corpus: Artifact | None
    plan: dict[str, Any]
    skipped: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    heldout: dict[str, Any]
    evaluations: list[Artifact]
    answers: list[dict[str, Any]]
    other_suites: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    alignment: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> dict[str, Any]:
        """The metrics of pre-training."""
        return self.stages["base"].artifact.metrics if "base" in self.stages else {}

    @property
    def learned(self) -> tuple[int, int]:
        """Documents of the corpus that are not held out, and their bytes; older corpora count only all and held out."""
        metrics = self.corpus.metrics if self.corpus else {}

        def training(unit: str) -> int:
            rest = int(metrics.get(unit) or 0) - int(metrics.get(f"heldout_{unit}") or 0)
            return int(metrics.get(f"train_{unit}", rest))

        return training("documents"), training("bytes")

    @property
    def seconds(self) -> float:
        """The time that making everything in the lineage took."""
        return sum(artifact.seconds for artifact in self.chain)

    def used(self) -> dict[str, str]:
        """Role -> id of all that the report was read from: a report's inputs."""
        found = {"model": self.model.id}
        found |= {f"evaluation-{number}": each.id for number, each in enumerate(self.evaluations, start=1)}
        return found


def dig(data: Any, *keys: str) -> Any:
    """`data[k1][k2]...`, None where a key is missing or a value is no mapping."""
    for key in keys:
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def collect(model: Artifact, workspace: Workspace) -> Facts:
    """Reads a model's lineage, the evaluations that name it as an input, and their files.

    Raises:
        ArtifactDamaged: a file of one of them was cut short, is gone, or is not what it should be.
    """
    tree = lineage(model, workspace)
    chain = _in_order(tree)
    stages = {}
    for artifact in chain:
        stage = str(artifact.settings.get("stage", "base"))
        if artifact.kind == "model" and stage in STAGES:
            stages[stage] = Stage(stage, artifact, list(_rows(artifact, "metrics.jsonl")))
    evaluations = [each for each in workspace.artifacts("evaluation") if model.id in each.inputs.values()]
    found = [(evaluation, _json(evaluation, "results.json")) for evaluation in evaluations]
    # Answers and pass rate come from one evaluation: the newest on held-out text, else the first.
    chosen = max(range(len(found)), key=lambda n: (bool(dig(found[n][1], "bits_per_byte")), n), default=None)
    if chosen is not None and not dig(found[chosen][1], "bits_per_byte"):
        chosen = 0
    heldout = found[chosen][1] if chosen is not None else {}
    answers = list(_rows(found[chosen][0], "samples.jsonl")) if chosen is not None else []
    others = [suite for n, (_, results) in enumerate(found) if n != chosen and (suite := dig(results, "suite"))]
    plan = _first(chain, "plan")
    corpus = _first(chain, "corpus")
    pairs = _first(chain, "preferences")
    base = stages.get("base")
    aligned = stages.get("aligned")
    return Facts(
        model=model,
        tree=tree,
        chain=chain,
        stages=stages,
        corpus=corpus,
        plan=_json(plan, "plan.json") if plan else {},
        skipped=list(_rows(corpus, "skipped.jsonl", 400)) if corpus else [],
        samples=list(_rows(base.artifact, "samples.jsonl")) if base else [],
        heldout=heldout,
        evaluations=evaluations,
        answers=answers,
        other_suites=others,
        pairs=list(_rows(pairs, "pairs.jsonl", 400)) if pairs else [],
        alignment=aligned.artifact.metrics if aligned and "before" in aligned.artifact.metrics else {},
    )


def _in_order(tree: Node) -> list[Artifact]:
    """Every artifact of the tree once, those that others were made from first."""
    found: dict[str, Artifact] = {}

    def visit(node: Node) -> None:
        for child in node.made_from:
            visit(child)
        if node.artifact is not None:
            found.setdefault(node.id, node.artifact)

    visit(tree)
    return list(found.values())


def _first(chain: list[Artifact], kind: str) -> Artifact | None:
    return next((artifact for artifact in chain if artifact.kind == kind), None)


def _path(artifact: Artifact, name: str) -> Path | None:
    return artifact.file(name) if name in artifact.files else None


def _json(artifact: Artifact, name: str) -> dict[str, Any]:
    path = _path(artifact, name)
    return _parsed(artifact, name, path.read_text("utf-8")) if path else {}


def _rows(artifact: Artifact, name: str, most: int = 100_000) -> Iterator[dict[str, Any]]:
    path = _path(artifact, name)
    if path is None:
        return
    with path.open(encoding="utf-8") as file:
        for line in islice(file, most):
            if line.strip():
                yield _parsed(artifact, name, line)


def _parsed(artifact: Artifact, name: str, text: str) -> dict[str, Any]:
    remedy = f"`ownlm verify {artifact.id}` checks it."
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ArtifactDamaged(f"{artifact.path / name} is no JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise ArtifactDamaged(f"{artifact.path / name} does not hold JSON objects; {remedy}")
    return data
