"""A model aligned with one's own choices, and what is said about it."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ownlm.engine.open import open_model
from ownlm.recipe import own_choices
from ownlm.recipe.judging import judgeable
from ownlm.recipe.kit import kits
from ownlm.recipe.own_choices import align_pairs, conclude
from ownlm.recipe.stages.instruct import HELDOUT
from ownlm.recipe.stages.preferences import PAIRS
from ownlm.runtime.errors import ArtifactNotFound, BudgetError, Interrupted, OwnLMError
from ownlm.runtime.progress import Bar, Screen
from ownlm.store.workspace import Build, Workspace
from small_run import Chain

QUIET = Screen(quiet=True)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a model this small, and the same numbers on every machine."""
    monkeypatch.setattr("ownlm.runtime.threads.thread_budget", lambda: 1)


@pytest.fixture
def pairs(built: Chain, tmp_path: Path) -> Path:
    """The run's own pairs, as a file of the user's."""
    path = tmp_path / "mine.jsonl"
    path.write_bytes((built.result.artifacts["preferences"].path / PAIRS).read_bytes())
    return path


def test_a_few_choices_make_a_model_and_a_verdict(
    copied: Workspace, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = copied.resolve("small")
    made = align_pairs("small", pairs, copied, Screen(), minutes=0.1)
    assert made.name == "small-yours"
    assert made.inputs == {"base": before.id}
    assert copied.aliases()["small-yours"] == made.id
    assert copied.aliases()["small"] == before.id, "nothing is promoted by itself"
    verdict = made.metrics["verdict"]
    assert verdict["conclusion"] == "too few to tell"
    assert verdict["difference"]["n"] > 0
    assert verdict["after"]["value"] - verdict["before"]["value"] == pytest.approx(verdict["difference"]["value"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"small-yours learned from {made.metrics['pairs']} pairs" in told
    assert ("longer than 256 tokens were left out" in told) == bool(made.metrics["pairs_too_long"])
    assert "of its answers pass the verifier" in told
    assert told.endswith("too few to tell.")
    assert (made.path / "model.safetensors").read_bytes() != (before.path / "model.safetensors").read_bytes()
    assert {"starters.json", "pair_prompts.json", HELDOUT, "metrics.jsonl"} <= set(made.files)
    assert open_model("small-yours", copied).facts.context == 256

    again = align_pairs("small", pairs, copied, Screen(), minutes=0.1, name="mine")
    assert again.id == made.id, "the same pairs make the same model"
    assert copied.aliases()["mine"] == made.id, "and it answers to the new name too"
    assert "Built before: " in capsys.readouterr().out


def test_the_verdict_is_on_prompts_that_nobody_chose_about(copied: Workspace, pairs: Path) -> None:
    held = judgeable(copied.resolve("small").path / HELDOUT, kits())
    lines = [
        json.dumps({"prompt": [m.to_json() for m in each.prompt], "chosen": "one", "rejected": "two"}) for each in held
    ]
    pairs.write_text("\n".join(lines[1:]) + "\n", "utf-8")
    made = align_pairs("small", pairs, copied, QUIET, 0.1)
    assert made.metrics["verdict"]["difference"]["n"] == 1
    pairs.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(OwnLMError, match="Every held-out prompt of small is among the pairs"):
        align_pairs("small", pairs, copied, QUIET, 0.1)


def test_as_many_steps_as_fit_into_the_time(tmp_path: Path) -> None:
    def steps(name: str, minutes: float, seconds: float) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        target = Build("model", name, "0" * 12, tmp_path / name)
        return own_choices._steps(target, minutes, seconds)

    assert steps("quick", 1, 0.01) == own_choices.STEPS_A_MINUTE
    assert steps("slow", 1, 1.0) == 17
    assert steps("slow", 1, 0.01) == 17, "decided once"
    assert steps("crawling", 1, 60) == own_choices.FEWEST_STEPS


def test_the_verdict_is_what_the_interval_says() -> None:
    assert conclude({"low": 0.01, "high": 0.2}) == "better"
    assert conclude({"low": -0.2, "high": -0.01}) == "worse"
    for low, high in ((-0.1, 0.1), (0.0, 0.3), (-0.3, 0.0), (0.0, 0.0)):
        assert conclude({"low": low, "high": high}) == "too few to tell"


def test_interrupted_and_resumed(copied: Workspace, pairs: Path, tmp_path: Path) -> None:
    whole = align_pairs("small", pairs, copied, QUIET, 0.1)
    weights = (whole.path / "model.safetensors").read_bytes()
    copied.remove(whole)

    class Pressing(Screen):
        @contextmanager
        def bar(self, label: str, total: float, unit: str = "") -> Iterator[Bar]:
            class Press(Bar):
                def update(self, completed: float, note: str = "") -> None:
                    if completed == 2:
                        signal.raise_signal(signal.SIGINT)

            yield Press(label, total, unit)

    with pytest.raises(Interrupted, match="Stopped at step 2 of 4"):
        align_pairs("small", pairs, copied, Pressing(quiet=True), 0.1)
    resumed = align_pairs("small", pairs, copied, QUIET, 0.1)
    assert resumed.id == whole.id
    assert (resumed.path / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none(copied: Workspace, pairs: Path, minutes: float) -> None:
    with pytest.raises(BudgetError, match="minutes are no budget"):
        align_pairs("small", pairs, copied, QUIET, minutes)


def test_what_it_cannot_work_with(copied: Workspace, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFound, match="smal.*small"):
        align_pairs("smal", pairs, copied, QUIET, 0.1)
    with pytest.raises(OwnLMError, match="The model small-base brings no held-out prompts"):
        align_pairs("small-base", pairs, copied, QUIET, 0.1)
    long = {"prompt": [{"role": "user", "content": "?"}], "chosen": "word " * 300, "rejected": "no"}
    pairs.write_text(json.dumps(long) + "\n", "utf-8")
    with pytest.raises(OwnLMError, match="All 1 pairs are longer than 256 tokens"):
        align_pairs("small", pairs, copied, QUIET, 0.1)
    pairs.write_text(json.dumps(long) + "\n{}\n", "utf-8")
    with pytest.raises(OwnLMError, match="mine.jsonl, line 2: a pair needs prompt"):
        align_pairs("small", pairs, copied, QUIET, 0.1)


def test_nothing_to_judge_by_is_told_before_training(
    copied: Workspace, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All held-out prompts are of a kit that is not installed any more."""
    path = copied.resolve("small").path / HELDOUT
    path.write_text(re.sub(r'"kit": "\w+"', '"kit": "gone"', path.read_text("utf-8")), "utf-8")
    monkeypatch.setattr("ownlm.train.loop.train", lambda *_, **__: pytest.fail("trained first"))
    with pytest.raises(OwnLMError, match="The model small brings no held-out prompts"):
        align_pairs("small", pairs, copied, QUIET, 0.1)
