"""Answers judged: verdicts, copies, summaries with intervals, paired gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import tiny
from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document
from ownlm.engine.local import LocalModel
from ownlm.engine.request import Completion, ModelFacts, SamplingParams, Usage
from ownlm.recipe.judging import Judged, answer_and_judge, askable, gain, judgeable, summary
from ownlm.recipe.stages.instruct import KIT, write_examples
from ownlm.score.memorised import TrainingSpans
from ownlm.score.verdict import Verdict


class Echo:
    """A kit: an answer passes when it holds the target; the gold score is its share of capitals."""

    name = "echo"

    def applies(self, document: Document) -> bool:
        return True

    def examples(self, document: Document) -> Iterator[InstructionExample]:
        return iter(())

    def verifiable(self, example: InstructionExample) -> bool:
        return example.task == "checked"

    def verify(self, example: InstructionExample, answer: str, finished: bool) -> Verdict:
        checks = {"target": example.meta["target"] in answer, "ends": finished}
        failed = tuple(name for name, good in checks.items() if not good)
        return Verdict(not failed, failed, 1 - len(failed) / 2)

    def gold(self, example: InstructionExample, answer: str) -> float:
        return sum(letter.isupper() for letter in answer) / max(1, len(answer))

    def starters(self) -> list[str]:
        return []

    def watch_prompts(self) -> list[str]:
        return []


@dataclass
class Scripted:
    """Gives the answers of a list, in order; an answer with a dot has ended by itself."""

    answers: list[str]
    asked: list[Any] = field(default_factory=list)
    facts: ModelFacts = field(default_factory=lambda: ModelFacts("scripted", "0", 100))

    def generate(self, prompts: Sequence[Any], params: SamplingParams) -> list[Completion]:
        self.asked += prompts
        said = [self.answers.pop(0) for _ in prompts]
        ids = [tuple(range(len(text))) for text in said]
        return [
            Completion(text, "stop" if "." in text else "length", Usage(1, 1), tokens)
            for text, tokens in zip(said, ids, strict=True)
        ]

    def count_tokens(self, prompt: Any) -> int:
        return len(prompt[-1].text)


def scripted(*answers: str) -> LocalModel:
    return cast(LocalModel, Scripted(list(answers)))


def example(target: str, prompt: str = "Say it.", task: str = "checked") -> InstructionExample:
    return InstructionExample.of(prompt, f"{target}.", "doc", task, {"target": target, KIT: "echo"})


KITS = [Echo()]
PARAMS = SamplingParams(max_tokens=20, seed=1)


def judged(*passed: float, gold: float = 0.5) -> list[list[Judged]]:
    """One prompt each, with ten answers of which that share passes."""
    groups = []
    for share in passed:
        verdicts = [Verdict(n < share * 10, () if n < share * 10 else ("target",), 1.0) for n in range(10)]
        groups.append([Judged(example("a"), "x", verdict, gold) for verdict in verdicts])
    return groups


def test_every_prompt_gets_its_answers_and_verdicts() -> None:
    model = Scripted(["alpha.", "beta.", "beta", "ALPHA."])
    found = answer_and_judge(cast(LocalModel, model), [example("alpha"), example("beta")], KITS, None, 2, PARAMS)
    assert [[j.answer for j in group] for group in found] == [["alpha.", "beta."], ["beta", "ALPHA."]]
    assert [[j.verdict.reasons for j in group] for group in found] == [[(), ("target",)], [("ends",), ("target",)]]
    assert found[1][1].gold == pytest.approx(5 / 6)
    assert [prompt[-1].text for prompt in model.asked] == ["Say it."] * 4


def test_copied_answers_fail() -> None:
    spans = TrainingSpans.build(np.arange(200, dtype=np.uint16))
    long, short = "alpha" + "." * 60, "alpha."
    found = answer_and_judge(scripted(long, short), [example("alpha")], KITS, spans, 2, PARAMS)
    assert [j.verdict.reasons for j in found[0]] == [("copied",), ()]
    assert not found[0][0].verdict.passed


def test_a_summary_has_intervals_and_counts_the_reasons() -> None:
    told = summary(judged(1.0, 0.0, 0.5, 0.5), seed=3)
    assert told["pass_rate"]["value"] == pytest.approx(0.5)
    assert told["pass_rate"]["low"] < 0.5 < told["pass_rate"]["high"]
    assert told["pass_rate"]["n"] == 4, "prompts are the items, not answers: those of one prompt are alike"
    assert told["gold"]["value"] == pytest.approx(0.5)
    assert told["reasons"] == {"target": 20}
    assert told["answers"] == 40


def test_gains_are_paired_by_prompt() -> None:
    """Prompts differ much, each gains the same: unpaired intervals would drown the gain, the paired one does not."""
    before, after = judged(0.0, 0.2, 0.5, 0.8), judged(0.2, 0.4, 0.7, 1.0, gold=0.4)
    told = gain(before, after, seed=0)
    assert [told["pass_rate"][key] for key in ("value", "low", "high")] == pytest.approx([0.2] * 3)
    assert [told["gold"][key] for key in ("value", "low", "high")] == pytest.approx([-0.1] * 3)
    assert gain(after, before, seed=0)["pass_rate"]["value"] == pytest.approx(-0.2)


def test_prompts_must_leave_room_for_an_answer() -> None:
    examples = [example("a", "x" * length) for length in (10, 49, 50, 51, 95, 20)]
    assert [len(e.prompt[-1].text) for e in askable(scripted(), examples, 160, 9)] == [10, 49, 50, 20]
    assert [len(e.prompt[-1].text) for e in askable(scripted(), examples, 5, 9)] == [10, 49, 50, 51, 95, 20]
    assert len(askable(scripted(), examples, 5, 2)) == 2


def test_a_models_own_held_out_prompts(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    stranger = InstructionExample.of("?", "!", "doc", "checked", {KIT: "gone"})
    examples = [example("a", task="plain"), example("b"), stranger, example("c"), example("d")]
    write_examples(path, examples)
    assert [each.meta["target"] for each in judgeable(path, KITS)] == ["b", "c", "d"]
    write_examples(path, [example("a", task="plain")])
    assert len(judgeable(path, KITS)) == 1, "better than no verdict at all"


def test_the_same_seed_asks_the_same_way_and_samples_differ() -> None:
    model = tiny.model()
    params = SamplingParams(max_tokens=6, temperature=1.0, seed=4)
    twice = [answer_and_judge(model, [example("a")], KITS, None, 4, params) for _ in range(2)]
    answers = [[j.answer for j in found[0]] for found in twice]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1
