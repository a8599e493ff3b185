"""Answers to instruction examples, judged by their kit's verifier and by the check for copied training text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.align.examples import InstructionExample
from ownlm.engine.request import SamplingParams
from ownlm.recipe.kit import Kit
from ownlm.recipe.stages.instruct import KIT, read_examples
from ownlm.score.intervals import bootstrap_mean, paired_bootstrap
from ownlm.score.verdict import Verdict

if TYPE_CHECKING:
    from ownlm.engine.local import LocalModel
    from ownlm.score.memorised import TrainingSpans


@dataclass(frozen=True)
class Judged:
    """One answer with its verdict and the gold score, which the verifier does not see."""

    example: InstructionExample
    answer: str
    verdict: Verdict
    gold: float


def answer_and_judge(
    model: LocalModel,
    examples: Sequence[InstructionExample],
    kits: Sequence[Kit],
    spans: TrainingSpans | None,
    samples: int,
    params: SamplingParams,
) -> list[list[Judged]]:
    """`samples` answers to each example, judged; the same seed asks the same way again."""
    by_name = {kit.name: kit for kit in kits}
    prompts = [example.prompt for example in examples for _ in range(samples)]
    completions = model.generate(prompts, params)
    judged: list[list[Judged]] = []
    for index, example in enumerate(examples):
        kit = by_name[example.meta[KIT]]
        mine = completions[index * samples : (index + 1) * samples]
        judged.append([])
        for completion in mine:
            verdict = kit.verify(example, completion.text, completion.reason == "stop")
            if spans is not None:
                verdict = verdict.and_also("copied", not spans.copied(completion.token_ids))
            judged[-1].append(Judged(example, completion.text, verdict, kit.gold(example, completion.text)))
    return judged


def askable(
    model: LocalModel, examples: Sequence[InstructionExample], answer_tokens: int, most: int
) -> list[InstructionExample]:
    """The first `most` examples whose prompt leaves the model's context room for an answer."""
    room = min(answer_tokens, model.facts.context // 2)
    fitting = (e for e in examples if model.count_tokens(e.prompt) + room <= model.facts.context)
    return list(islice(fitting, most))


def judgeable(path: Path, kits: Sequence[Kit]) -> list[InstructionExample]:
    """The examples of a file that their kit can verify; without any such, all whose kit is known."""
    by_name = {kit.name: kit for kit in kits}
    known = [example for example in read_examples(path) if example.meta[KIT] in by_name]
    return [example for example in known if by_name[example.meta[KIT]].verifiable(example)] or known


def summary(judged: Sequence[Sequence[Judged]], seed: int) -> dict[str, Any]:
    """Pass rate and gold score with 95 % bootstrap intervals over prompts, and how often each check failed."""
    passed = [sum(j.verdict.passed for j in group) / len(group) for group in judged]
    gold = [sum(j.gold for j in group) / len(group) for group in judged]
    reasons = Counter(reason for group in judged for j in group for reason in j.verdict.reasons)
    return {
        "pass_rate": bootstrap_mean(passed, seed).to_json(),
        "gold": bootstrap_mean(gold, seed).to_json(),
        "reasons": dict(reasons),
        "answers": sum(len(group) for group in judged),
    }


def gain(before: Sequence[Sequence[Judged]], after: Sequence[Sequence[Judged]], seed: int) -> dict[str, Any]:
    """The paired differences of pass rate and gold score, prompt by prompt, with 95 % bootstrap intervals."""

    def means(judged: Sequence[Sequence[Judged]], gold: bool) -> list[float]:
        return [sum(j.gold if gold else float(j.verdict.passed) for j in group) / len(group) for group in judged]

    return {
        "pass_rate": paired_bootstrap(means(before, False), means(after, False), seed).to_json(),
        "gold": paired_bootstrap(means(before, True), means(after, True), seed).to_json(),
    }
