"""Stage 8: bits per byte, keystrokes saved and the suite, beside yardsticks measured in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Build

CODE_VERSION = 2


def suite_path(context: RunContext) -> Path | None:
    """The recipe's suite, else that of the kit which most documents belong to, if it has one."""
    if context.recipe.suite:
        return Path(context.recipe.suite)
    if "corpus" not in context.artifacts:
        return None
    path = getattr(context.main_kit, "suite", None)
    return Path(path) if path else None


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The evaluation artifact of the aligned model."""
    suite = suite_path(context)
    return context.workspace.make(
        "evaluation",
        context.recipe.name,
        lambda target: _build(context, target, suite),
        inputs={**context.inputs("base", "tokens", "corpus", "plan"), "model": context.artifacts["aligned"].id},
        settings={
            "suite": sha256_of(suite) if suite else None, "excerpts": context.plan.excerpts,
            "heldout_bytes": context.plan.heldout_bytes, "seed": context.recipe.seed,
        },
        code_version=CODE_VERSION,
    )  # fmt: skip


def _build(context: RunContext, target: Build, suite: Path | None) -> dict[str, Any]:
    from ownlm.data.corpus import read_documents
    from ownlm.data.shards import read_shards
    from ownlm.data.tokenizer import Tokenizer
    from ownlm.engine.open import open_artifact
    from ownlm.evaluate.compression import join, start_primed
    from ownlm.evaluate.heldout import run_heldout
    from ownlm.evaluate.ngram import NgramModel
    from ownlm.evaluate.run import run_suite, write_samples
    from ownlm.evaluate.suite import read_suite
    from ownlm.recipe.training import heldout_sample, set_threads

    set_threads(context.plan)
    tokenizer = Tokenizer.load(context.path("tokenizer"))
    documents = read_documents(context.path("corpus"), "train")
    heldout = heldout_sample(context, context.plan.heldout_bytes)
    xz = start_primed(join(documents), join(heldout))
    ids = read_shards(context.path("tokens"), "train", tokenizer.vocab_size).ids
    ngram = NgramModel.train(ids, tokenizer.vocab_size, start=tokenizer.end_of_text)
    base = open_artifact(context.artifacts["base"])
    result = run_heldout(
        model=base, ngram=ngram, tokenizer=tokenizer, train=documents, heldout=heldout, xz=xz,
        seed=context.recipe.seed, excerpts=context.plan.excerpts,
    )  # fmt: skip
    context.interruption.check()
    found = result.to_json()
    if suite is not None:
        answered = run_suite(open_artifact(context.artifacts["aligned"]), read_suite(suite), context.recipe.seed)
        found["suite"] = answered.to_json()
        write_samples(target.folder / "samples.jsonl", answered)
    from ownlm.runtime import atomic

    atomic.write_json(target.folder / "results.json", found)
    return {key: found[key] for key in ("bits_per_byte", "by_kind", "keystrokes", "suite")}


def sentence(context: RunContext, artifact: Artifact) -> str:
    """The model beside its yardsticks."""
    bits = artifact.metrics["bits_per_byte"]
    text = (
        f"Held-out text costs the model {bits['model']['value']:.3f} bits per byte; an n-gram model of the same text "
        f"{bits['ngram']['value']:.3f}, xz -9 {bits['xz_cold']:.3f} cold and {bits['xz_primed']:.3f} primed with the "
        "training text."
    )
    saved = artifact.metrics["keystrokes"]
    if saved:
        text += (
            f" Its completions spare {saved['model']['value']:.0%} of the keystrokes (n-gram "
            f"{saved['ngram']['value']:.0%}, word list {saved['words']['value']:.0%})."
        )
    return text
