"""What stands in `examples/` runs."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from ownlm.evaluate.suite import read_suite
from ownlm.recipe.schema import load_recipe
from small_run import Chain

EXAMPLES = Path(__file__).parents[2] / "examples"


def main_of(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / name))["main"]


@pytest.fixture(autouse=True)
def home(built: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLM_HOME", str(built.workspace.root))


def test_a_model_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    main_of("use_a_model.py")("small")
    told = capsys.readouterr().out
    assert told.startswith("small reads 256 tokens at once.\ndef read_lines(path):\n")
    assert told.count(" bits per byte: ") == 2


def test_a_suite_is_judged(copied: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLM_HOME", str(copied.root))  # type: ignore[attr-defined]
    main_of("judge_with_a_suite.py")("small")
    told = capsys.readouterr().out
    assert " of 3 cases pass (95 % interval " in told
    assert "explains: " in told, "a model of a second cannot know that"


def test_the_recipe_and_the_suite_are_read() -> None:
    recipe = load_recipe(EXAMPLES / "recipe.yaml")
    assert all(Path(source).is_dir() for source in recipe.sources)
    assert recipe.suite is not None and len(read_suite(Path(recipe.suite)).cases) == 3


def test_the_recipe_shows_every_key_with_its_default() -> None:
    from dataclasses import asdict

    from ownlm.recipe.schema import Recipe

    shown, default = (asdict(each) for each in (load_recipe(EXAMPLES / "recipe.yaml"), Recipe("my-model", ())))
    own = {"sources", "suite", "path"}
    assert {key: value for key, value in shown.items() if key not in own} == {
        key: value for key, value in default.items() if key not in own
    }
