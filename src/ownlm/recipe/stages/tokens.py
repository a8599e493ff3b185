"""Stage 4: the corpus as token shards."""

from __future__ import annotations

from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 1


def make(context: RunContext, *, corpus: Artifact | None = None, fim: float = 0.0) -> tuple[Artifact, bool]:
    """The tokens artifact: shards, and which document lies where in them.

    `corpus` is one besides the run's own, `fim` the share of the training documents that are rearranged for
    fill-in-the-middle.
    """
    documents_of = context.artifacts["corpus"] if corpus is None else corpus
    seed = context.recipe.seed

    def build(target: Build) -> dict[str, Any]:
        from ownlm.data.corpus import read_documents
        from ownlm.data.fill_in_the_middle import FillInTheMiddle
        from ownlm.data.shards import write_shards
        from ownlm.data.tokenizer_files import load_tokenizer
        from ownlm.runtime.threads import thread_budget

        tokenizer = load_tokenizer(context.path("tokenizer"))
        documents = read_documents(documents_of.path)
        rearranged = FillInTheMiddle(fim, seed) if fim else None
        metrics = write_shards(documents, tokenizer, target.folder, thread_budget(), rearranged)
        return {**metrics, "tokens": metrics["train_tokens"] + metrics["heldout_tokens"]}

    return context.workspace.make(
        "tokens",
        context.recipe.name if corpus is None else corpus.name,
        build,
        inputs={"corpus": documents_of.id, **context.inputs("tokenizer")},
        settings={"fim": fim, "seed": seed} if fim else {},
        code_version=CODE_VERSION,
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """How many tokens there are."""
    found = artifact.metrics
    turned = found.get("rearranged")
    gaps = f" {turned:,} documents were rearranged, so that the model learns to fill gaps." if turned else ""
    return (
        f"Turned the text into {found['tokens']:,} tokens, {found['bytes_per_token']:.2f} bytes each on average.{gaps}"
    )
