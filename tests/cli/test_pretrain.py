"""`ownlm pretrain`: what it hands to the recipe, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_types import Command
from ownlm.cli import verbs
from ownlm.cli.pretrain import typed
from ownlm.recipe import pretraining
from ownlm.recipe.pretraining import Request
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

Calls = list[tuple[Request, list[str]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> Iterator[Calls]:
    """The calls of the recipe's function, which gives a model."""
    monkeypatch.setitem(verbs.VERBS, "pretrain", verbs.Verb("pretrain", "train a base model"))
    model = workspace.make("model", "mine", lambda _: {"heldout_bits_per_byte": 1.5})[0]
    workspace.point("mine", model)
    found: Calls = []

    def pretrain(request: Request, place: Workspace, screen: Any, command: list[str]) -> Artifact:
        assert place.root == workspace.root
        found.append((request, command))
        return model

    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    yield found


def test_a_folder(ownlm: Command, calls: Calls, tmp_path: Path) -> None:
    done = ownlm("pretrain", tmp_path, "--minutes", 3, "--fim", 0.5, "--track", "tensorboard, mlflow", "--name", "mine")
    assert done.code == 0, done.err
    [(request, command)] = calls
    expected = Request(folder=tmp_path, minutes=3.0, fim=0.5, track=("tensorboard", "mlflow"), name="mine")
    assert request == expected
    words = [str(tmp_path), "--minutes", "3", "--fim", "0.5", "--name", "mine", "--track", "tensorboard,mlflow"]
    assert sorted(command) == sorted(["pretrain", *words])
    assert 'Next: ownlm complete mine "..."' in done.out


def test_what_one_types_to_go_on_gives_the_same_request(ownlm: Command, calls: Calls, tmp_path: Path) -> None:
    given = (
        "pretrain", "--corpus", "notes", "--init", "hf:org/name", "--replay", "10%:old", "--steps", 40, "--seed", 3,
        "--tensor-parallel", 2, "--device", "cpu",
    )  # fmt: skip
    ownlm(*given)
    ownlm(*calls[0][1])
    assert calls[0] == calls[1]
    assert calls[0][0].tensor_parallel == 2 and calls[0][0].replay == "10%:old" and calls[0][0].steps == 40


def test_nothing_said_is_nothing_typed() -> None:
    assert typed(vars(Request())) == ["pretrain"]


def test_for_programs(ownlm: Command, calls: Calls) -> None:
    told = ownlm("pretrain", "--teacher", "large", "--json").json
    assert told["name"] == "mine" and told["metrics"] == {"heldout_bits_per_byte": 1.5}
    assert calls[0][0].teacher == "large"


def test_a_mistake_is_one_sentence(ownlm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verbs.VERBS, "pretrain", verbs.Verb("pretrain", "train a base model"))
    done = ownlm("pretrain", "--replay", "10%")
    assert done.code == 2 and "Traceback" not in done.err
    assert done.err.count("\n") == 1 and "add --init MODEL" in done.err
