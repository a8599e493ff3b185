"""Stage 9: the report, one HTML page and a model card."""

from __future__ import annotations

from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The report artifact of the aligned model."""
    from ownlm.report.build import build_report

    before = {artifact.id for artifact in context.workspace.artifacts("report")}
    artifact = build_report(context.artifacts["aligned"], context.workspace)
    return artifact, artifact.id in before


def sentence(context: RunContext, artifact: Artifact) -> str:
    """Where the report lies."""
    return f"Wrote the report and the model card: {artifact.path / 'index.html'}"
