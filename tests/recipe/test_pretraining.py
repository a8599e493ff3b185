"""`ownlm pretrain`: from documents, from another model, from a teacher; stopped and resumed; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import family_cases
import foreign_tokenizers
from ownlm.data.shards import read_shards
from ownlm.data.tokenizer import FILL_IN_THE_MIDDLE
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.engine.open import open_model
from ownlm.evaluate.bits_per_byte import bits_per_byte
from ownlm.model.files import load_model
from ownlm.recipe.pretraining import Request, pretrain
from ownlm.recipe.training import heldout_documents
from ownlm.runtime.errors import BudgetError, Interrupted, ModelNotFound, OwnLMError
from ownlm.runtime.progress import Bar, Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace
from pretrain_program import STEPS, small
from small_run import small_plan, write_documents

CASES = {case.name: case for case in family_cases.CASES}


class Told(Screen):
    """Remembers the sentences; calls `stop` when the bar of this label reaches `at`."""

    def __init__(self, label: str = "", at: float = 0, stop: Any = None) -> None:
        super().__init__(quiet=True)
        self.said: list[str] = []
        self._label, self._at, self._stop = label, at, stop

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    @contextmanager
    def bar(self, label: str, total: float, unit: str = "") -> Iterator[Bar]:
        outer = self

        class Stopping(Bar):
            def update(self, completed: float, note: str = "") -> None:
                if label == outer._label and completed >= outer._at and outer._stop:
                    outer._stop()

        yield Stopping(label, total, unit)


def run(workspace: Workspace, screen: Screen | None = None, **asked: Any) -> Artifact:
    with small():
        made = pretrain(Request(**asked), workspace, screen or Told(), ["pretrain"])
    assert made is not None
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Artifact]]:
    """A base model from a folder, and a corpus of prose besides. Read it, and change nothing in it."""
    place = tmp_path_factory.mktemp("pretrain")
    workspace = Workspace(place / "workspace")
    code, prose = write_documents(place / "code", 12, 0), write_documents(place / "prose", 0, 12)
    threads = torch.get_num_threads()
    run(workspace, folder=prose, steps=2)
    yield workspace, run(workspace, folder=code)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def copied(base: tuple[Workspace, Artifact], workspace: Workspace) -> Workspace:
    shutil.copytree(base[0].root, workspace.root)
    return workspace


def parents(model: Artifact, workspace: Workspace) -> dict[str, str]:
    return {role: workspace.by_id(identifier).name for role, identifier in model.inputs.items()}


# ---- from documents


def test_a_folder_becomes_a_model(base: tuple[Workspace, Artifact]) -> None:
    workspace, model = base
    kinds = [each.kind for each in workspace.artifacts() if each.name.startswith("code")]
    assert sorted(kinds) == ["corpus", "model", "plan", "tokenizer", "tokens"]
    assert (model.name, workspace.aliases()["code-base"]) == ("code-base", model.id)
    assert model.metrics["steps"] == STEPS and 0 < model.metrics["heldout_bits_per_byte"] < 8
    rows = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert model.settings["objective"] == "pretrain" and set(model.inputs) == {"tokens", "tokenizer", "plan"}
    assert open_model("code-base", workspace).score(["def count_apples(items):\n"])[0].bytes == 25
    progress = json.loads((workspace.root / "progress.json").read_text())
    assert [stage["name"] for stage in progress["stages"]] == ["Corpus", "Plan", "Tokenizer", "Tokens", "Pre-training"]
    assert progress["command"] == ["pretrain"]


def test_nothing_is_made_twice(copied: Workspace) -> None:
    corpus = copied.resolve("code", ("corpus",))
    before = {each.id for each in copied.artifacts()}
    again = run(copied, corpus=corpus.id)
    assert {each.id for each in copied.artifacts()} == before
    assert again.id == copied.aliases()["code-base"]


def test_steps_and_a_name_of_ones_own(copied: Workspace) -> None:
    made = run(copied, corpus="code", steps=3, name="mine")
    assert (made.name, made.metrics["steps"]) == ("mine", 3)
    assert copied.aliases()["mine"] == made.id != copied.aliases()["code-base"]


def test_a_plan_that_was_made_before(copied: Workspace) -> None:
    plan = next(each for each in copied.artifacts("plan") if each.name == "code")
    made = run(copied, plan=plan.id, seed=3, steps=2)
    assert made.inputs["plan"] == plan.id and made.settings["seed"] == 3


def test_a_model_that_fills_gaps(copied: Workspace) -> None:
    made = run(copied, corpus="code", fim=0.5, steps=2)
    tokenizer = load_tokenizer(made.path)
    assert set(FILL_IN_THE_MIDDLE) < set(tokenizer.special)
    tokens = copied.by_id(made.inputs["tokens"])
    before = tokenizer.special[FILL_IN_THE_MIDDLE[0]]
    ids = read_shards(tokens.path, "train", tokenizer.vocab_size).ids
    assert tokens.metrics["rearranged"] == (np.asarray(ids) == before).sum() > 2
    assert tokens.settings == {"fim": 0.5, "seed": 0}


def test_a_run_that_was_stopped_goes_on(copied: Workspace, base: tuple[Workspace, Artifact]) -> None:
    """The same weights in the end as without the stop."""
    whole = base[1]
    copied.remove(copied.resolve("code-base"))
    import signal

    screen = Told("Pre-training", 8, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="Stopped at step 8 of 20"):
        run(copied, screen, corpus="code")
    assert copied.builds()
    again = Told()
    made = run(copied, again, corpus="code")
    assert any("checkpoint of step 8" in sentence for sentence in again.said)
    assert made.id == whole.id
    assert (made.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_it_may_be_told_to_finish(copied: Workspace) -> None:
    from ownlm.store.workspace import RUN_STATE
    from ownlm.train.control import ask_finish

    def finish() -> None:
        [folder] = copied.builds()
        ask_finish(folder / RUN_STATE)

    screen = Told("Pre-training", 10, finish)
    made = run(copied, screen, corpus="code", name="short", steps=200)
    assert made.metrics["steps"] < 30
    samples = [json.loads(line)["step"] for line in (made.path / "samples.jsonl").read_text().splitlines()]
    assert samples[-1] == made.metrics["steps"]
    assert any("Finishing" in sentence for sentence in screen.said)


def test_trackers_are_opened_and_closed(copied: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    closed: list[bool] = []

    class Tracker:
        def __call__(self, row: dict[str, Any]) -> None:
            rows.append(row["step"])

        def close(self) -> None:
            closed.append(True)

    def opened(names: Any, folder: Path, run: str, settings: Any, warn: Any) -> list[Tracker]:
        assert names == ("tensorboard",) and folder == copied.root / "tracking" and run.startswith("tracked-")
        assert settings["plan"]["steps"] == 3
        return [Tracker()]

    monkeypatch.setattr("ownlm.train.trackers.require_trackers", lambda names: None)
    monkeypatch.setattr("ownlm.recipe.base_training.open_trackers", opened)
    run(copied, corpus="code", name="tracked", steps=3, track=("tensorboard",))
    assert (rows, closed) == ([1, 2, 3], [True])


# ---- from another model


def continued_on(corpus: str, workspace: Workspace, **asked: Any) -> Artifact:
    return run(workspace, **{"corpus": corpus, "init": "code-base", "name": "further", **asked})


def test_a_model_goes_on_with_new_documents(copied: Workspace) -> None:
    screen = Told()
    made = continued_on("prose", copied, replay="25%", screen=screen)
    assert parents(made, copied) == {
        "tokens": "prose", "plan": "prose", "init": "code-base", "replay": "code", "own": "code",
    }  # fmt: skip
    new, own = made.metrics["domains"]["new"], made.metrics["domains"]["own"]
    assert (new["corpus"], own["corpus"]) == ("prose", "code")
    assert new["after"] < new["before"]
    assert made.settings["replay"] == 0.25 and made.metrics["heldout_bits_per_byte"] == new["after"]
    for name in (f"{new['before']:.3f}", f"{new['after']:.3f}", f"{own['before']:.3f}", f"{own['after']:.3f}"):
        assert name in screen.said[-1]
    # What is told is what the models pay, as anybody measures it.
    for name, when in (("code-base", "before"), ("further", "after")):
        model = open_model(name, copied)
        for role, each in (("prose", new), ("code", own)):
            documents = heldout_documents(copied.resolve(role, ("corpus",)).path, 3_000, 0)
            assert bits_per_byte(model, documents).total.value == pytest.approx(each[when], abs=2e-3)
    assert load_tokenizer(made.path).encode("def") == load_tokenizer(copied.resolve("code-base").path).encode("def")
    assert (made.path / "starters.json").is_file()


def test_without_replay_the_own_domain_is_measured_too(copied: Workspace) -> None:
    made = continued_on("prose", copied)
    assert set(made.metrics["domains"]) == {"new", "own"} and "replay" not in made.inputs
    assert made.metrics["replay"] == 0.0


def test_a_continued_run_that_was_stopped_goes_on(copied: Workspace) -> None:
    import signal

    whole = continued_on("prose", copied, replay="25%", name="whole")
    weights = (whole.path / "model.safetensors").read_bytes()
    copied.remove(whole)
    screen = Told("Pre-training", 7, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped:
        continued_on("prose", copied, replay="25%", screen=screen)
    assert stopped.value.exit_code == 143
    made = continued_on("prose", copied, replay="25%")
    assert (made.path / "model.safetensors").read_bytes() == weights
    assert made.metrics["domains"] == whole.metrics["domains"]


def open_weights(folder: Path, case: str, tokenizer: str) -> Path:
    """Another's model folder: a tiny checkpoint of a family with its own kind of tokenizer."""
    from transformers import AutoModelForCausalLM

    size = load_tokenizer(foreign_tokenizers.write(folder, tokenizer)).vocab_size
    config = CASES[case].config()
    config.vocab_size = size + 3  # as many are padded
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "LICENSE").write_text("MIT")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nAnother model's card.")
    return folder


@pytest.mark.parametrize(
    ("case", "tokenizer"), [("llama 3", "llama3"), ("gpt 2", "gpt2"), ("gemma 2", "gemma"), ("mixtral", "llama2")]
)
def test_any_familys_model_goes_on_as_its_own_kind(
    copied: Workspace, tmp_path: Path, case: str, tokenizer: str
) -> None:
    folder = open_weights(tmp_path / "theirs", case, tokenizer)
    made = run(copied, corpus="prose", init=str(folder), replay="20%:code", name="further", steps=6)
    before, after = (json.loads((each / "config.json").read_text()) for each in (folder, made.path))
    assert after["model_type"] == before["model_type"] and after["vocab_size"] == before["vocab_size"]
    assert after["torch_dtype"] == "bfloat16" and after.get("eos_token_id") == before.get("eos_token_id")
    assert (made.path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert (made.path / "LICENSE").is_file() and not (made.path / "README.md").exists()
    assert parents(made, copied)["init"] == "theirs" and parents(made, copied)["replay"] == "code"
    one, two = load_model(folder), load_model(made.path)
    assert all(p.dtype == torch.bfloat16 for p in two.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(theirs(ids).logits, two.float()(ids), rtol=1e-3, atol=1e-3)
    new = made.metrics["domains"]["new"]
    assert new["after"] < new["before"]


# ---- from a teacher


def test_a_student_in_the_teachers_vocabulary(copied: Workspace) -> None:
    screen = Told()
    made = run(copied, screen, corpus="prose", teacher="code-base", name="student", steps=STEPS)
    assert parents(made, copied) == {
        "tokens": "prose", "tokenizer": "code-base", "plan": "prose", "teacher": "code-base", "draws": "prose-drawn",
    }  # fmt: skip
    teacher = copied.resolve("code-base")
    assert load_tokenizer(made.path).special == load_tokenizer(teacher.path).special
    assert made.settings["objective"] == "distil"
    documents = heldout_documents(copied.resolve("prose", ("corpus",)).path, small_plan().heldout_bytes, 0)
    found = bits_per_byte(open_model("code-base", copied), documents).total.value
    assert made.metrics["teacher_bits_per_byte"] == pytest.approx(found, abs=2e-3)
    assert f"Its teacher code-base pays {found:.3f}" in screen.said[-1]
    draws = copied.by_id(made.inputs["draws"])
    assert draws.settings["draws"] == 24
    assert draws.metrics["bytes"] == (draws.path / "draws.bin").stat().st_size == draws.metrics["tokens"] * 24 * 2
    plan = json.loads((copied.by_id(made.inputs["plan"]).path / "plan.json").read_text())
    assert (plan["vocabulary"], plan["steps"]) == (load_tokenizer(teacher.path).vocab_size, 46)


def test_draws_that_were_cut_off_go_on(copied: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr("ownlm.align.teacher._GROUP", 2)
    screen = Told("Asking the teacher", 1, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="what the teacher said of them is saved"):
        run(copied, screen, corpus="prose", teacher="code-base", steps=2)
    asked: list[float] = []
    again = Told("Asking the teacher", 0, lambda: asked.append(1))
    run(copied, again, corpus="prose", teacher="code-base", steps=2)
    documents = copied.resolve("prose", ("corpus",)).metrics["train_documents"]
    assert len(asked) == -(-documents // 2) - 1


def test_a_teacher_for_a_model_that_goes_on(copied: Workspace) -> None:
    made = continued_on("prose", copied, teacher="code-base", steps=4)
    assert {"init", "teacher", "draws", "tokens", "plan", "own"} == set(made.inputs)
    assert made.settings["objective"] == "distil"
    assert made.metrics["teacher"] == "code-base"


# ---- what is refused, in one sentence, before anything is made


def test_float8_is_switched_on_for_training_and_off_for_the_model(base: tuple[Workspace, Artifact]) -> None:
    with (
        mock.patch("ownlm.train.float8.require_float8"),
        mock.patch("ownlm.recipe.base_training.use_float8") as on,
        mock.patch("ownlm.recipe.base_training.leave_float8") as off,
    ):
        made = run(base[0], corpus="prose", steps=2, name="rounded", chosen=("float8=on",))
    assert on.call_count == off.call_count == 1 and made.settings["chosen"] == {"float8": True}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"corpus": "missing"}, "The corpus 'missing' is not known. There is: .*prose"),
        ({"folder": Path("nowhere")}, "There is no folder nowhere"),
        ({"folder": Path(), "corpus": "prose"}, "DIR and --corpus do not go together"),
        ({"init": "missing", "corpus": "prose"}, "'missing' is not known"),
        ({"init": "openai:http://x#y", "corpus": "prose"}, "--init openai:.* on another machine"),
        ({"teacher": "missing", "corpus": "prose"}, "'missing' is not known"),
        ({"teacher": "openai:http://x#y", "corpus": "prose"}, "--teacher openai:.* on another machine"),
        ({"plan": "missing"}, "The plan 'missing' is not known"),
        ({"plan": "code", "corpus": "prose"}, "--plan code was made for the corpus code-.*, not for prose-"),
        ({"plan": "code", "minutes": 3.0}, "--plan and --minutes do not go together"),
        ({"plan": "code", "init": "code-base"}, "--plan and --init do not go together"),
        ({"replay": "10%", "corpus": "prose"}, "add --init MODEL"),
        ({"init": "code-base", "corpus": "prose", "replay": "120%"}, "--replay 120%: a share between"),
        ({"init": "code-base", "corpus": "prose", "replay": "-1"}, "--replay -1: a share between"),
        ({"init": "code-base", "corpus": "prose", "replay": "some"}, "--replay some: a share between"),
        ({"init": "code-base", "corpus": "prose", "replay": "10%:missing"}, "The corpus 'missing' is not known"),
        ({"init": "code-base", "corpus": "code", "replay": "10%"}, "the new documents are the old ones"),
        ({"init": "code-base", "corpus": "prose", "replay": "10%:prose"}, "the new documents are the old ones"),
        ({"init": "code-base", "corpus": "prose", "fim": 0.5}, r"The tokenizer has no <\|fim_prefix\|>"),
        ({"teacher": "code-base", "corpus": "prose", "fim": 0.5}, r"The tokenizer has no <\|fim_prefix\|>"),
        ({"init": "code-base", "teacher": "prose-base", "corpus": "prose"}, "--teacher prose-base has another vocab"),
        ({"init": "code-base", "teacher": "code-base", "replay": "10%"}, "--replay and --teacher do not go together"),
        ({"fim": 1.5}, "--fim 1.5: .* between 0 and 1"),
        ({"steps": 0}, "--steps 0"),
        ({"seed": -1}, "--seed -1"),
        ({"minutes": 0.1}, "0.1 minutes are no budget"),
        ({"name": "../out"}, "The name '../out' cannot be used"),
        ({"megabytes": 3.0, "corpus": "prose"}, "--megabytes says how much of DIR"),
        ({"track": ("clipboard",)}, "There is no tracker 'clipboard'"),
        (
            {"corpus": "prose", "device": "cpu", "chosen": ("float8=on",)},
            "float8 needs an NVIDIA GPU; this run is on cpu",
        ),
        ({"tensor_parallel": 2}, "--tensor-parallel 2 divides each matrix among 2 processes, but there is 1"),
    ],
)
def test_bad_input(base: tuple[Workspace, Artifact], asked: dict[str, Any], message: str) -> None:
    before = sorted(base[0].root.rglob("*"))
    with pytest.raises(OwnLMError, match=message):
        run(base[0], **asked)
    assert sorted(base[0].root.rglob("*")) == before


def test_a_model_from_elsewhere_whose_corpus_is_not_known(copied: Workspace, tmp_path: Path) -> None:
    folder = open_weights(tmp_path / "theirs", "llama 3", "llama3")
    before = len(copied.artifacts())
    with pytest.raises(OwnLMError, match=r"what .*theirs learned from is not known here.*--replay 10%:CORPUS"):
        run(copied, corpus="prose", init=str(folder), replay="10%")
    assert len(copied.artifacts()) == before
    screen = Told()
    made = run(copied, screen, corpus="prose", init=str(folder), steps=2)
    assert set(made.metrics["domains"]) == {"new"} and "not known here" in screen.said[-1]


def test_an_adapter_is_no_model_to_go_on_with(copied: Workspace) -> None:
    copied.make("adapter", "small", lambda _: {})
    with pytest.raises(OwnLMError, match="--init small: that is an adapter. `ownlm adapter merge small`"):
        run(copied, corpus="prose", init="small")


def test_an_empty_workspace(workspace: Workspace) -> None:
    with pytest.raises(OwnLMError, match="`ownlm pretrain DIR` makes a corpus"):
        run(workspace)


def test_a_damaged_model_is_not_continued(copied: Workspace) -> None:
    path = copied.resolve("code-base").path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(OwnLMError, match="is not what was written"):
        continued_on("prose", copied)


def test_a_corpus_too_small_for_a_window(copied: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "little"
    folder.mkdir()
    for index, word in enumerate(("alpha", "beta", "gamma")):
        (folder / f"{word}.md").write_text(f"{word} is number {index} of a few short notes.\n")
    with pytest.raises(OwnLMError, match="too few for one window"):
        run(copied, folder=folder, init="code-base")


def test_too_little_time_for_a_student(copied: Workspace) -> None:
    with (
        mock.patch("ownlm.recipe.planner.make_plan", lambda *_: small_plan(context=64)),
        mock.patch("ownlm.recipe.measure.step_seconds", lambda *_, **__: 3.0),
        pytest.raises(BudgetError, match="a training step takes 3.0 s"),
    ):
        pretrain(Request(corpus="prose", teacher="code-base"), copied, Told())


def test_an_unknown_model_lists_what_there_is(copied: Workspace) -> None:
    with pytest.raises(ModelNotFound, match="code-base"):
        continued_on("prose", copied, init="code-bas")
