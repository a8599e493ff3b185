"""Stage 7a: preference pairs. The instructed model answers several times; the verifier says which answer is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ownlm.recipe.context import RunContext
from ownlm.recipe.stages.instruct import TRAIN, read_examples, verifiable
from ownlm.runtime.errors import CorpusError
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

if TYPE_CHECKING:
    from ownlm.recipe.judging import Judged
    from ownlm.score.verdict import Verdict

CODE_VERSION = 2
PAIRS = "pairs.jsonl"
ANSWER_TOKENS = 128
FEWEST_PAIRS = 16
"""With fewer sampled pairs than this, the documents' own answers stand in as chosen ones; the pairs say so."""


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The preferences artifact."""
    align, plan = context.recipe.align, context.plan
    return context.workspace.make(
        "preferences",
        context.recipe.name,
        lambda target: _build(context, target),
        inputs=context.inputs("instructed", "tokens", "plan"),
        settings={
            "prompts": plan.align_prompts, "samples": align.samples, "temperature": align.temperature,
            "answer_tokens": ANSWER_TOKENS, "seed": context.recipe.seed,
        },
        code_version=CODE_VERSION,
    )  # fmt: skip


def training_spans(context: RunContext) -> Any:
    """Every 50-token span of the training text, to see what an answer copies."""
    from ownlm.data.shards import read_shards
    from ownlm.score.memorised import TrainingSpans

    vocabulary = context.artifacts["tokens"].metrics["vocabulary"]
    return TrainingSpans.build(read_shards(context.path("tokens"), "train", vocabulary).ids)


def _build(context: RunContext, target: Build) -> dict[str, Any]:
    from ownlm.engine.open import open_artifact
    from ownlm.engine.request import SamplingParams
    from ownlm.recipe.judging import answer_and_judge, askable
    from ownlm.recipe.training import set_threads

    plan, align = context.plan, context.recipe.align
    set_threads(plan)
    model, spans = open_artifact(context.artifacts["instructed"]), training_spans(context)
    examples = verifiable(context, read_examples(context.path("instructed") / TRAIN))
    examples = askable(model, examples, ANSWER_TOKENS, plan.align_prompts)
    if not examples:
        raise CorpusError(f"No instruction prompt leaves room for an answer in a context of {plan.context} tokens.")
    pairs: list[dict[str, Any]] = []
    everything: list[list[Judged]] = []
    with context.screen.bar("Sampling answers", len(examples), "prompts") as bar:
        for first in range(0, len(examples), 32):
            context.interruption.check()
            seed = derive_seed(context.recipe.seed, "preferences", first)
            params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=align.temperature, seed=seed)
            group = examples[first : first + 32]
            judged_group = answer_and_judge(model, group, context.kits, spans, align.samples, params)
            everything += judged_group
            pairs += [pair for judged in judged_group for pair in _pairs(judged)]
            bar.update(first + len(group), f"{len(pairs)} pairs")
    referenced = 0
    if len(pairs) < FEWEST_PAIRS:
        reference = [pair for judged in everything if (pair := _reference_pair(judged))]
        pairs, referenced = [*pairs, *reference], len(reference)
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (target.folder / PAIRS).write_text("".join(lines), "utf-8")
    verdicts = [each.verdict.passed for judged in everything for each in judged]
    return {
        "prompts": len(examples), "answers": len(verdicts), "pass_rate": sum(verdicts) / len(verdicts),
        "pairs": len(pairs), "reference_pairs": referenced,
    }  # fmt: skip


def _pairs(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """At most two pairs a prompt: the best answers with the worst, where the verifier tells them apart."""
    ranked = sorted(judged, key=lambda each: (each.verdict.passed, each.verdict.value), reverse=True)
    pairs = []
    for better, worse in zip(ranked[:2], reversed(ranked[-2:]), strict=True):
        # The same text may come from other tokens, and then be cut off or copied: nobody can choose between the two.
        told_apart = better.verdict.value > worse.verdict.value and better.answer != worse.answer
        if told_apart and better.answer.strip() and worse.answer.strip():
            pairs.append(_pair(worse, better.answer, better.verdict))
    return pairs


def _reference_pair(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """The document's own answer against the worst sampled one: what is left when a model cannot do anything yet."""
    said = [each for each in judged if each.answer.strip() and each.answer != each.example.answer]
    worst = min(said, key=lambda each: each.verdict.value, default=None)
    return _pair(worst, worst.example.answer, None) if worst else None


def _pair(worse: Judged, chosen: str, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "prompt": [message.to_json() for message in worse.example.prompt],
        "chosen": chosen,
        "rejected": worse.answer,
        "chosen_verdict": "from the document" if verdict is None else list(verdict.reasons),
        "rejected_verdict": list(worse.verdict.reasons),
        "source": worse.example.source,
    }


def sentence(context: RunContext, artifact: Artifact) -> str:
    """How the answers were, and how many pairs they made."""
    found = artifact.metrics
    own = f" ({found['reference_pairs']:,} of them with the document's own answer)" if found["reference_pairs"] else ""
    return (
        f"Sampled {found['answers']:,} answers to {found['prompts']:,} prompts; {found['pass_rate']:.0%} passed the "
        f"verifier, and {found['pairs']:,} pairs of a better and a worse answer came of them{own}."
    )
