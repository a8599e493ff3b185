"""The whole chain, small: ten artifacts, reused, interrupted, and with what users may hand it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ownlm.engine.local import LocalModel
from ownlm.engine.open import open_model
from ownlm.recipe.kits.prose import ProseKit
from ownlm.recipe.kits.python import PythonKit
from ownlm.recipe.runner import PROGRESS, STAGES, RunResult, run
from ownlm.recipe.schema import AlignPart, CorpusPart, Recipe
from ownlm.recipe.stages import preferences
from ownlm.recipe.stages.preferences import PAIRS
from ownlm.recipe.training import SAMPLES
from ownlm.runtime.errors import BudgetError, CorpusError, Interrupted, OwnLMError, RecipeError
from ownlm.runtime.progress import Bar, Screen
from ownlm.score.verdict import Verdict
from ownlm.store.workspace import Workspace
from small_run import Chain, run_small, small_plan, small_recipe, write_documents

MODELS = ("base", "instructed", "aligned")


class Watching(Screen):
    """A quiet screen that remembers the sentences, and calls `at(label, done)` whenever a bar moves."""

    def __init__(self, at: Callable[[str, float], None] = lambda label, done: None) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []
        self._at = at

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    @contextmanager
    def bar(self, label: str, total: float, unit: str = "") -> Iterator[Bar]:
        bar, at = Bar(label, total, unit), self._at

        class Calling(Bar):
            def update(self, completed: float, note: str = "") -> None:
                at(label, completed)

        yield Calling(bar.label, bar.total, bar.unit)


def progress(workspace: Workspace) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((workspace.root / PROGRESS).read_text("utf-8"))
    return told


def states(workspace: Workspace) -> list[str]:
    return [stage["state"] for stage in progress(workspace)["stages"]]


def metrics(result: RunResult, role: str) -> dict[str, Any]:
    return result.artifacts[role].metrics


# ---- an undisturbed run


def test_every_stage_makes_its_artifact(built: Chain) -> None:
    artifacts = built.result.artifacts
    assert list(artifacts) == [stage.role for stage in STAGES]
    assert [artifact.kind for artifact in artifacts.values()] == [
        "corpus", "plan", "tokenizer", "tokens", "model", "model", "preferences", "model", "evaluation", "report",
    ]  # fmt: skip
    assert (built.result.built, built.result.reused) == (10, 0)
    assert [artifacts[role].settings["stage"] for role in MODELS] == list(MODELS)
    for artifact in artifacts.values():
        artifact.verify()
    assert built.workspace.builds() == []


def test_every_artifact_says_what_it_was_made_from(built: Chain) -> None:
    artifacts = built.result.artifacts
    ids = {artifact.id: role for role, artifact in artifacts.items()}
    parents = {role: {ids[parent] for parent in artifact.inputs.values()} for role, artifact in artifacts.items()}
    assert parents["base"] == {"tokens", "tokenizer", "plan"}
    assert parents["instructed"] >= {"base", "corpus"}
    assert parents["aligned"] >= {"preferences", "instructed"}
    assert parents["evaluation"] >= {"aligned", "base", "corpus"}


def test_aliases_point_to_the_models(built: Chain) -> None:
    aliases = {"small-base": "base", "small-instructed": "instructed", "small": "aligned"}
    found = built.workspace.aliases()
    assert {alias: found[alias] for alias in aliases} == {a: built.result.artifacts[r].id for a, r in aliases.items()}


def test_the_progress_file_tells_the_whole_story(built: Chain) -> None:
    told = progress(built.workspace)
    assert [stage["name"] for stage in told["stages"]] == [stage.title for stage in STAGES]
    assert states(built.workspace) == ["done"] * 10
    assert all(stage["sentence"] and stage["seconds"] >= 0 for stage in told["stages"])
    assert told["stage"] is None
    assert (told["recipe"], told["minutes"]) == ("small", 2)


def test_training_is_told_while_it_goes_on(built: Chain) -> None:
    base = built.result.artifacts["base"].path
    rows = [json.loads(line) for line in (base / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert {"loss", "bits_per_byte", "lr", "tokens", "tokens_per_second", "grad_norm", "remaining"} <= set(rows[0])
    samples = [json.loads(line) for line in (base / SAMPLES).read_text("utf-8").splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 3 + [10] * 3 + [20] * 3
    assert len({sample["prompt"] for sample in samples}) == 3


def test_what_was_learned_is_measured(built: Chain) -> None:
    base, instructed, aligned = (built.result.artifacts[role].metrics for role in MODELS)
    assert base["heldout_bits_per_byte"] < 5
    assert set(base["heldout_by_kind"]) == {"code", "prose"}
    assert instructed["validation_loss_after"] < instructed["validation_loss_before"]
    assert instructed["tasks"]["write"] > 0
    for key in ("before", "after", "gain"):
        assert (
            aligned[key]["pass_rate"]["low"] <= aligned[key]["pass_rate"]["value"] <= aligned[key]["pass_rate"]["high"]
        )
        assert aligned[key]["gold"]["n"] == 4
    change = aligned["after"]["heldout_bits_per_byte"] / aligned["before"]["heldout_bits_per_byte"] - 1
    assert aligned["bits_per_byte_change"] == pytest.approx(change, abs=1e-4)
    bits = metrics(built.result, "evaluation")["bits_per_byte"]
    assert bits["model"]["value"] == pytest.approx(base["heldout_bits_per_byte"], rel=1e-3)


def test_the_models_answer(built: Chain) -> None:
    for name in ("small-base", "small"):
        model = open_model(name, built.workspace)
        assert model.facts.context == 256
        assert model.score(["def count_apple(items):\n"])[0].bits_per_byte < 8


# ---- once more


def test_a_second_run_reuses_everything_at_once(
    built: Chain, copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownlm.train.loop.train", lambda *_, **__: pytest.fail("trained again"))
    started, screen = time.monotonic(), Watching()
    again = run_small(built.recipe, copied, make_plan=lambda *_: pytest.fail("measured again"), screen=screen)
    assert time.monotonic() - started < 5
    assert (again.built, again.reused) == (0, 10)
    assert {r: a.id for r, a in again.artifacts.items()} == {r: a.id for r, a in built.result.artifacts.items()}
    assert sum(said.endswith("(Built before.)") for said in screen.said) == 10


def test_a_changed_document_is_noticed(copied: Workspace, tmp_path: Path) -> None:
    recipe = small_recipe(write_documents(tmp_path / "documents"))
    (tmp_path / "documents" / "apple.md").write_text("# The apple\n\nAnother text about the apple of today.\n", "utf-8")
    with pytest.raises(ZeroDivisionError):
        run_small(recipe, copied, make_plan=lambda *_: 1 // 0)
    assert states(copied)[:3] == ["done", "running", "waiting"]


def test_another_choice_for_alignment_shares_what_comes_before_it(built: Chain, copied: Workspace) -> None:
    other = dataclasses.replace(built.recipe, align=dataclasses.replace(built.recipe.align, beta=0.7))
    again = run_small(other, copied)
    assert again.reused == 7
    assert again.artifacts["preferences"].id == built.result.artifacts["preferences"].id
    assert again.artifacts["aligned"].id != built.result.artifacts["aligned"].id


def test_another_seed_decides_everything_after_the_corpus_is_read(built: Chain, workspace: Workspace) -> None:
    other = run_small(dataclasses.replace(built.recipe, seed=5), workspace)
    for role, artifact in other.artifacts.items():
        assert artifact.id != built.result.artifacts[role].id
    weights = [(r.artifacts["base"].path / "model.safetensors").read_bytes() for r in (other, built.result)]
    assert weights[0] != weights[1]


def test_a_removed_artifact_is_built_again_alike(built: Chain, copied: Workspace) -> None:
    copied.remove(copied.resolve("small-instructed"))
    again = run_small(built.recipe, copied)
    assert (again.built, again.reused) == (1, 9)
    for role in MODELS:
        assert (again.artifacts[role].path / "model.safetensors").read_bytes() == built.weights(role)


# ---- interrupted


def test_the_progress_file_keeps_the_command(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(write_documents(tmp_path / "documents"))
    monkeypatch.setattr("ownlm.recipe.planner.make_plan", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run(recipe, workspace, Screen(quiet=True), command=["demo", "notes", "--minutes", "30"])
    told = progress(workspace)
    assert told["command"] == ["demo", "notes", "--minutes", "30"]
    assert told["stage"] is None


def test_interrupted_in_each_training_and_resumed_it_ends_with_the_same_weights(
    built: Chain, workspace: Workspace
) -> None:
    stops = [("Pre-training", 7, signal.SIGTERM), ("Fine-tuning", 3, signal.SIGINT), ("Aligning", 2, signal.SIGTERM)]
    for label, step, number in stops:
        where = (label, step)

        def press(moving: str, done: float, where: tuple[str, int] = where, number: signal.Signals = number) -> None:
            if (moving, done) == where:
                signal.raise_signal(number)

        with pytest.raises(Interrupted, match=f"Stopped at step {step} of .*; everything is saved") as caught:
            run_small(built.recipe, workspace, screen=Watching(press))
        assert caught.value.exit_code == (143 if number == signal.SIGTERM else 130)
        assert progress(workspace)["stage"] is None
        assert len(workspace.builds()) == 1
    resumed = run_small(built.recipe, workspace)
    assert (resumed.built, resumed.reused) == (3, 7)
    for role in MODELS:
        assert (resumed.artifacts[role].path / "model.safetensors").read_bytes() == built.weights(role), role
    ids = {role: artifact.id for role, artifact in resumed.artifacts.items()}
    assert ids == {role: artifact.id for role, artifact in built.result.artifacts.items()}
    rows = (resumed.artifacts["base"].path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 21))
    assert workspace.builds() == []


def test_interrupted_between_stages(built: Chain, workspace: Workspace) -> None:
    pressed: list[float] = []

    def press(label: str, done: float) -> None:
        if label == "Reading" and not pressed:
            pressed.append(done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="Stopped after the stage 'Corpus'") as caught:
        run_small(built.recipe, workspace, screen=Watching(press))
    assert caught.value.exit_code == 130
    assert states(workspace) == ["done"] + ["waiting"] * 9


def test_a_sample_file_that_was_cut_off_is_mended(built: Chain, workspace: Workspace) -> None:
    """A full disk may leave half a line; the resumed run must not stumble over it."""

    def press(label: str, done: float) -> None:
        if (label, done) == ("Pre-training", 12):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run_small(built.recipe, workspace, screen=Watching(press))
    samples = workspace.builds()[0] / SAMPLES
    samples.write_text(samples.read_text("utf-8") + '{"step": 10, "pro', "utf-8")
    resumed = run_small(built.recipe, workspace)
    lines = (resumed.artifacts["base"].path / SAMPLES).read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0] * 3 + [10] * 3 + [20] * 3


# ---- models that cannot do anything yet


def without_alignment(workspace: Workspace) -> None:
    """Takes everything after fine-tuning away."""
    for kind in ("preferences", "evaluation", "report"):
        shutil.rmtree(workspace.root / kind)
    workspace.remove(workspace.resolve("small"))


def test_no_answer_that_passes_leaves_the_documents_own_ones(
    built: Chain, copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_alignment(copied)
    for kit in (PythonKit, ProseKit):
        monkeypatch.setattr(kit, "verify", lambda *_: Verdict(False, ("never",), 0.0))
    result = run_small(built.recipe, copied)
    told = metrics(result, "preferences")
    assert told["pass_rate"] == 0
    assert told["pairs"] == told["reference_pairs"] > 0
    pairs = [
        json.loads(line)
        for line in (result.artifacts["preferences"].path / PAIRS).read_text("utf-8").split("\n")
        if line
    ]
    assert all(pair["chosen_verdict"] == "from the document" for pair in pairs)
    assert any(pair["chosen"].startswith("```python\ndef ") for pair in pairs)
    assert all(pair["rejected_verdict"][0] == "never" for pair in pairs)
    assert metrics(result, "aligned")["steps"] == 4
    assert metrics(result, "aligned")["after"]["pass_rate"]["value"] == 0


def test_a_model_that_says_nothing_is_aligned_by_nothing_and_the_run_goes_on(
    built: Chain, copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_alignment(copied)
    generate = LocalModel.generate

    def silent(self: LocalModel, *arguments: Any) -> Any:
        return [dataclasses.replace(answer, text=" ") for answer in generate(self, *arguments)]

    monkeypatch.setattr(LocalModel, "generate", silent)
    screen = Watching()
    result = run_small(built.recipe, copied, screen=screen)
    assert metrics(result, "preferences")["pairs"] == 0
    assert (metrics(result, "aligned")["pairs"], metrics(result, "aligned")["steps"]) == (0, 0)
    assert (result.artifacts["aligned"].path / "model.safetensors").read_bytes() == built.weights("instructed")
    assert "No preference pair could be used, so the aligned model is the instructed one." in screen.said
    assert result.built == 4


def test_the_worst_answer_that_says_something_is_rejected(built: Chain) -> None:
    from ownlm.recipe.judging import Judged
    from ownlm.recipe.stages.instruct import TRAIN, read_examples

    example = read_examples(built.result.artifacts["instructed"].path / TRAIN)[0]

    def answer(text: str, value: float) -> Judged:
        return Judged(example, text, Verdict(value == 1, () if value == 1 else ("stub",), value), 0.0)

    answers = [answer("", 0.0), answer("good", 1.0), answer("poor", 0.2), answer("fair", 0.5), answer("fine", 0.8)]
    made = preferences._pairs(answers)
    assert [(pair["chosen"], pair["rejected"]) for pair in made] == [("fine", "poor")], (
        "an empty answer teaches nothing"
    )
    reference = preferences._reference_pair(answers)
    assert reference is not None
    assert (reference["chosen"], reference["rejected"]) == (example.answer, "poor")
    assert preferences._reference_pair([answer(" ", 0.0), answer(example.answer, 1.0)]) is None


def test_two_answers_of_the_same_text_make_no_pair(built: Chain) -> None:
    from ownlm.recipe.judging import Judged
    from ownlm.recipe.stages.instruct import TRAIN, read_examples

    example = read_examples(built.result.artifacts["instructed"].path / TRAIN)[0]
    ended, cut_off = Verdict(True, (), 1.0), Verdict(False, ("ends",), 0.5)
    assert preferences._pairs([Judged(example, "same", each, 0.0) for each in (ended, cut_off)]) == []
    told_apart = [Judged(example, "same", ended, 0.0), Judged(example, "other", cut_off, 0.0)]
    assert [(pair["chosen"], pair["rejected"]) for pair in preferences._pairs(told_apart)][:1] == [("same", "other")]


# ---- what users may hand it


def refused(recipe: Recipe, workspace: Workspace, error: type[OwnLMError], words: str, **options: Any) -> None:
    """The run is refused before anything is trained, and leaves nothing half-made."""
    with pytest.raises(error, match=words) as caught:
        run_small(recipe, workspace, make_plan=lambda *_: pytest.fail("went on to the plan"), **options)
    assert caught.value.exit_code == 2
    assert workspace.artifacts("model") == []


def test_a_source_that_is_no_folder(workspace: Workspace, tmp_path: Path) -> None:
    refused(small_recipe(tmp_path / "missing"), workspace, RecipeError, "the source .*missing is not a folder")
    recipe = dataclasses.replace(small_recipe(tmp_path / "missing"), path=tmp_path / "r.yaml")
    refused(recipe, workspace, RecipeError, "r.yaml: the source .*missing is not a folder")


def test_an_empty_folder(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(small_recipe(tmp_path / "empty"), workspace, CorpusError, "There is nothing readable in .*empty")
    assert states(workspace) == ["running"] + ["waiting"] * 9


def test_documents_with_nothing_to_ask_about(workspace: Workspace, tmp_path: Path) -> None:
    """Noticed before anything is measured or trained, not after minutes of pre-training."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for index in range(8):
        lines = "\n".join(f"- {index} {index * step}" for step in range(2, 40))
        (folder / f"{index}.md").write_text(lines, "utf-8")
    refused(small_recipe(folder), workspace, CorpusError, "found no instruction example in the train documents")


def test_an_unknown_kit_and_a_broken_suite_are_told_at_the_start(workspace: Workspace, tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents")
    refused(small_recipe(documents, kits=("pyhton",)), workspace, OwnLMError, "pyhton.*python")
    refused(small_recipe(documents, corpus=CorpusPart(rules=("gone",))), workspace, OwnLMError, "gone.*ownlm.rules")
    refused(small_recipe(documents, align=AlignPart("dop")), workspace, OwnLMError, "Did you mean .dpo.")
    refused(
        small_recipe(documents, suite=str(tmp_path / "none.yaml")), workspace, OwnLMError, "none.yaml cannot be read"
    )
    (tmp_path / "bad.yaml").write_text("name: x\nkases: []\n", "utf-8")
    refused(small_recipe(documents, suite=str(tmp_path / "bad.yaml")), workspace, OwnLMError, "bad.yaml, line 2")
    assert workspace.artifacts() == []


@pytest.mark.parametrize("minutes", [0.2, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none(workspace: Workspace, tmp_path: Path, minutes: float) -> None:
    recipe = dataclasses.replace(small_recipe(write_documents(tmp_path / "documents")), minutes=minutes)
    refused(recipe, workspace, BudgetError, "minutes are no budget")
    assert not workspace.root.exists()


def test_conversations_that_all_exceed_the_context(built: Chain, workspace: Workspace) -> None:
    with pytest.raises(CorpusError, match="instruction examples are longer than 20 tokens"):
        run_small(built.recipe, workspace, small_plan(context=20))


def test_a_workspace_inside_its_own_source_is_not_read(tmp_path: Path) -> None:
    """`cd notes; OWNLM_HOME=mine ownlm demo .` twice: the second run must not learn from the first one's reports."""
    documents = write_documents(tmp_path / "documents")
    workspace = Workspace(documents / "mine")
    first = run_small(small_recipe(documents), workspace)
    again = run_small(small_recipe(documents), workspace)
    assert (first.built, again.built) == (10, 0)
    assert metrics(first, "corpus")["documents"] == 16
