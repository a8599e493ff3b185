"""Stage 7a: preference pairs. The instructed model answers several times, and the verifier says which answer is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.recipe.stages.instruct import TRAIN, read_examples, verifiable
from ownlm.runtime.errors import CorpusError
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 1
PAIRS = "pairs.jsonl"
ANSWER_TOKENS = 160


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
    from ownlm.recipe.judging import answer_and_judge
    from ownlm.recipe.training import set_threads

    plan, align = context.plan, context.recipe.align
    set_threads(plan)
    examples = verifiable(context, read_examples(context.path("instructed") / TRAIN))[: plan.align_prompts]
    if not examples:
        raise CorpusError("The kits can verify no answer to these documents, so no preference pairs can be made.")
    model, spans = open_artifact(context.artifacts["instructed"]), training_spans(context)
    pairs: list[dict[str, Any]] = []
    answers = passed = 0
    with context.screen.bar("Sampling answers", len(examples), "prompts") as bar:
        for first in range(0, len(examples), 32):
            seed = derive_seed(context.recipe.seed, "preferences", first)
            params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=align.temperature, seed=seed)
            group = examples[first : first + 32]
            for judged in answer_and_judge(model, group, context.kits, spans, align.samples, params):
                answers += len(judged)
                passed += sum(each.verdict.passed for each in judged)
                pairs += _pairs(judged)
            bar.update(first + len(group), f"{len(pairs)} pairs")
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (target.folder / PAIRS).write_text("".join(lines), "utf-8")
    return {"prompts": len(examples), "answers": answers, "pass_rate": passed / answers, "pairs": len(pairs)}


def _pairs(judged: Sequence[Any]) -> list[dict[str, Any]]:
    """At most two pairs a prompt: the best answers with the worst, where the verifier tells them apart."""
    ranked = sorted(judged, key=lambda each: (each.verdict.passed, each.verdict.value), reverse=True)
    pairs = []
    for better, worse in ((ranked[0], ranked[-1]), (ranked[1], ranked[-2])) if len(ranked) >= 4 else ():
        if better.verdict.value > worse.verdict.value and better.answer.strip() and worse.answer.strip():
            pairs.append(
                {
                    "prompt": [message.to_json() for message in better.example.prompt],
                    "chosen": better.answer,
                    "rejected": worse.answer,
                    "chosen_verdict": list(better.verdict.reasons),
                    "rejected_verdict": list(worse.verdict.reasons),
                    "source": better.example.source,
                }
            )
    return pairs


def sentence(context: RunContext, artifact: Artifact) -> str:
    """How the answers were, and how many pairs they made."""
    found = artifact.metrics
    return (
        f"Sampled {found['answers']:,} answers to {found['prompts']:,} prompts; {found['pass_rate']:.0%} passed the "
        f"verifier, and {found['pairs']:,} pairs of a better and a worse answer came of them."
    )
