"""Stage 4: the corpus as token shards."""

from __future__ import annotations

from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 1


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The tokens artifact: shards, and which document lies where in them."""

    def build(target: Build) -> dict[str, Any]:
        from ownlm.data.corpus import read_documents
        from ownlm.data.shards import write_shards
        from ownlm.data.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(context.path("tokenizer"))
        documents = read_documents(context.path("corpus"))
        metrics = write_shards(documents, tokenizer, target.folder, context.plan.threads)
        return {**metrics, "tokens": metrics["train_tokens"] + metrics["heldout_tokens"]}

    return context.workspace.make(
        "tokens", context.recipe.name, build, inputs=context.inputs("corpus", "tokenizer"), code_version=CODE_VERSION
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """How many tokens there are."""
    found = artifact.metrics
    return f"Turned the text into {found['tokens']:,} tokens, {found['bytes_per_token']:.2f} bytes each on average."
