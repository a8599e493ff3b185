"""Asks a model all cases of a suite and keeps every answer."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.engine.request import LanguageModel
from ownlm.evaluate.suite import Case, Suite, read_suite
from ownlm.runtime import atomic
from ownlm.runtime.progress import Screen
from ownlm.score.intervals import Interval, bootstrap_mean, wilson
from ownlm.score.text import Answer, judge
from ownlm.score.verdict import Verdict
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

if TYPE_CHECKING:
    from ownlm.engine.open import Weights

BATCH = 16


@dataclass(frozen=True)
class Answered:
    """One case with what the model said and how it was judged."""

    case: Case
    answer: Answer
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """A line of `samples.jsonl`."""
        return {
            "id": self.case.id,
            "tags": list(self.case.tags),
            "prompt": self.case.shown,
            "answer": self.answer.text,
            "finished": self.answer.finished,
            "passed": self.verdict.passed,
            "reasons": list(self.verdict.reasons),
            "value": self.verdict.value,
        }


@dataclass(frozen=True)
class SuiteResult:
    """`pass_rate` has Wilson's interval; `value` is the mean partial credit, with a bootstrap interval."""

    name: str
    pass_rate: Interval
    value: Interval
    by_tag: dict[str, Interval]
    answers: tuple[Answered, ...]

    def to_json(self) -> dict[str, Any]:
        """Without the single answers."""
        return {
            "name": self.name,
            "pass_rate": self.pass_rate.to_json(),
            "value": self.value.to_json(),
            "by_tag": {tag: interval.to_json() for tag, interval in self.by_tag.items()},
        }


def run_suite(model: LanguageModel, suite: Suite, seed: int = 0) -> SuiteResult:
    """Asks and judges every case.

    Raises:
        ContextOverflow: a prompt that does not fit the model.
        UnsupportedParameter: sampling that the model cannot honour.
    """
    answers: list[Answer] = []
    for start in range(0, len(suite.cases), BATCH):
        prompts = [case.prompt for case in suite.cases[start : start + BATCH]]
        completions = model.generate(prompts, suite.sampling)
        answers.extend(Answer(completion.text, completion.reason == "stop") for completion in completions)
    answered = tuple(
        Answered(case, answer, judge(answer, case.score)) for case, answer in zip(suite.cases, answers, strict=True)
    )
    by_tag = {tag: _pass_rate([each for each in answered if tag in each.case.tags]) for tag in _tags(suite)}
    value = bootstrap_mean([each.verdict.value for each in answered], seed)
    return SuiteResult(suite.name, _pass_rate(answered), value, by_tag, answered)


def evaluate(
    model_name: str,
    suite_path: Path | str,
    workspace: Workspace,
    screen: Screen | None = None,
    weights: Weights | None = None,
) -> Artifact:
    """Runs a suite on a model and keeps the outcome as an evaluation artifact.

    The same model and the same suite give the artifact that exists already. `results.json` holds `{"suite": ...}`,
    `samples.jsonl` every answer.

    Args:
        model_name: any MODEL name.
        suite_path: the suite's YAML file.
        workspace: where to keep it.
        screen: where to say what came out.
        weights: how to hold the model's weights.

    Raises:
        OwnLMError: a suite with a mistake in it, or a model that is not there.
    """
    from ownlm.engine.open import Weights, open_model

    suite = read_suite(Path(suite_path))
    weights = weights or Weights()
    model = open_model(model_name, workspace, weights)
    facts = model.facts

    def build(target: Build) -> dict[str, Any]:
        result = run_suite(model, suite)
        atomic.write_json(target.folder / "results.json", {"suite": result.to_json()})
        write_samples(target.folder / "samples.jsonl", result)
        return {"pass_rate": result.pass_rate.to_json(), "cases": len(result.answers)}

    artifact, existed = workspace.make(
        "evaluation",
        suite.name,
        build,
        inputs={"model": facts.id},
        settings={
            "model": facts.name,
            "suite": suite.to_json(),
            **({} if weights == Weights() else {"weights": dataclasses.asdict(weights)}),
        },
    )
    rate = Interval.from_json(artifact.metrics["pass_rate"])
    (screen or Screen(quiet=True)).say(
        f"{facts.name} passes {rate.value:.0%} of the {rate.n} cases of {suite.name} "
        f"(95 % interval {rate.low:.0%} to {rate.high:.0%}){', as measured before' if existed else ''}."
    )
    return artifact


def write_samples(path: Path, result: SuiteResult) -> None:
    """Every answer, one JSON object a line."""
    lines = [json.dumps(each.to_json(), ensure_ascii=False) for each in result.answers]
    atomic.write_text(path, "".join(line + "\n" for line in lines))


def _pass_rate(answered: list[Answered] | tuple[Answered, ...]) -> Interval:
    return wilson(sum(each.verdict.passed for each in answered), len(answered))


def _tags(suite: Suite) -> list[str]:
    return sorted({tag for case in suite.cases for tag in case.tags})
