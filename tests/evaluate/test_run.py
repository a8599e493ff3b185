import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import tiny
from ownlm.data.message import Message
from ownlm.engine.request import Completion, Event, ModelFacts, SamplingParams, TextScore, Usage
from ownlm.evaluate.run import evaluate, run_suite
from ownlm.evaluate.suite import read_suite
from ownlm.model.files import save_model
from ownlm.runtime.progress import Screen
from ownlm.store.workspace import Workspace

SUITE = """\
name: tiny
cases:
  - {prompt: one, score: {contains: one}, tags: [a]}
  - {prompt: two, score: {contains: [two, three]}, tags: [a, b]}
  - {prompt: cut, score: {finished: true}}
"""


class Echo:
    """Says what it was asked; the prompt "cut" is cut off."""

    facts = ModelFacts("echo", "0123456789ab", 64)

    def __init__(self) -> None:
        self.asked = 0

    def generate(
        self, prompts: Sequence[str | Sequence[int] | Sequence[Message]], params: SamplingParams
    ) -> list[Completion]:
        self.asked += len(prompts)
        return [Completion(str(p), "length" if p == "cut" else "stop", Usage(1, 1)) for p in prompts]

    def stream(self, prompt: object, params: SamplingParams) -> Iterator[Event]:
        raise NotImplementedError

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        raise NotImplementedError

    def count_tokens(self, prompt: object) -> int:
        raise NotImplementedError


@pytest.fixture
def suite_path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE)
    return path


def test_every_answer_is_judged(suite_path: Path) -> None:
    result = run_suite(Echo(), read_suite(suite_path))
    assert [each.verdict.passed for each in result.answers] == [True, False, False]
    assert result.pass_rate.value == pytest.approx(1 / 3) and result.pass_rate.n == 3
    assert result.by_tag["a"].value == 0.5 and result.by_tag["b"].value == 0
    assert result.value.value == pytest.approx(0.5)
    assert result.answers[1].verdict.reasons == ("contains",)


def test_the_artifact_is_made_once_and_anew_for_another_suite(
    suite_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Echo()
    engine_open = ModuleType("ownlm.engine.open")
    engine_open.open_model = lambda name, workspace, weights: model  # type: ignore[attr-defined]
    engine_open.Weights = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ownlm.engine.open", engine_open)
    artifact = evaluate("echo", suite_path, workspace, Screen())
    assert model.asked == 3 and artifact.inputs == {"model": model.facts.id}
    results = json.loads(artifact.file("results.json").read_text())
    assert results["suite"]["pass_rate"]["n"] == 3
    lines = artifact.file("samples.jsonl").read_text().splitlines()
    assert json.loads(lines[2])["finished"] is False
    assert evaluate("echo", suite_path, workspace, Screen()).id == artifact.id and model.asked == 3
    said = capsys.readouterr().out.splitlines()
    assert "33%" in said[0] and "before" in said[1]
    suite_path.write_text(SUITE.replace("contains: one", "contains: o"))
    assert evaluate("echo", suite_path, workspace).id != artifact.id


def test_two_folders_of_one_name_are_measured_each(suite_path: Path, workspace: Workspace, tmp_path: Path) -> None:
    folders = [tmp_path / place / "model" for place in ("one", "other", "copy")]
    for seed, folder in zip((0, 1, 0), folders, strict=True):
        save_model(folder, tiny.decoder(seed), tiny.tokenizer())
    one, other, copy = (evaluate(str(folder), suite_path, workspace) for folder in folders)
    assert one.settings["model"] == other.settings["model"] == "model"
    assert one.id != other.id and copy.id == one.id
    assert len(workspace.artifacts("evaluation")) == 2
