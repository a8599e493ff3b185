"""Stage 1: from files to a corpus of documents with their licences, a part of it held out."""

from __future__ import annotations

from typing import Any

from ownlm.data.corpus import CODE_VERSION, build_corpus, survey
from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The corpus artifact of the recipe's sources, sampled to the budget."""
    settings = context.recipe.corpus.settings(context.minutes, context.recipe.seed)
    found = survey(context.sources, settings)

    def build(target: Build) -> dict[str, Any]:
        with context.screen.bar("Reading", settings.max_bytes or found.bytes, "B") as bar:
            return build_corpus(context.sources, settings, target.folder, lambda done, _: bar.update(done))

    return context.workspace.make(
        "corpus",
        context.recipe.name,
        build,
        settings={**settings.to_json(), "sources": list(context.recipe.sources), "fingerprint": found.fingerprint},
        code_version=CODE_VERSION,
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What was read."""
    found = artifact.metrics
    skipped = f"; {found['skipped']:,} files were left out, each with its reason" if found["skipped"] else ""
    return (
        f"Read {found['documents']:,} documents, {found['bytes'] / 1e6:.1f} MB, and kept "
        f"{found['heldout_documents']:,} of them ({found['heldout_bytes'] / 1e6:.2f} MB) aside for measuring{skipped}."
    )
