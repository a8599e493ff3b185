"""Stage 3: learn a vocabulary from the training documents."""

from __future__ import annotations

from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 1


def make(context: RunContext, *, fim: bool = False) -> tuple[Artifact, bool]:
    """The tokenizer artifact, with the plan's vocabulary; with `fim` it has the tokens of fill-in-the-middle."""

    def build(target: Build) -> dict[str, Any]:
        from ownlm.data.corpus import read_documents
        from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE, Tokenizer

        texts = (document.text for document in read_documents(context.path("corpus"), "train"))
        tokenizer = Tokenizer.train(texts, context.plan.vocabulary, FILL_IN_THE_MIDDLE if fim else ())
        tokenizer.save(target.folder)
        return {"vocabulary": tokenizer.vocab_size}

    return context.workspace.make(
        "tokenizer",
        context.recipe.name,
        build,
        inputs=context.inputs("corpus"),
        settings={"vocabulary": context.plan.vocabulary, **({"fim": True} if fim else {})},
        code_version=CODE_VERSION,
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """How large the vocabulary is."""
    return (
        f"Learned a vocabulary of {artifact.metrics['vocabulary']:,} byte-level tokens: "
        "frequent words are one token, any other text is spelled."
    )
