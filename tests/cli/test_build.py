"""`demo`, `run`, `plan`, `align`, `eval`, `report`, `serve`: what they hand to the rooms below, and what they tell."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cli_types import Command
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

Install = Callable[..., list[tuple[tuple[Any, ...], dict[str, Any]]]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a function into a module in place of the real one; returns the list of its calls."""

    def put(name: str, answer: Any = None) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        module_name, function = name.rsplit(".", 1)
        module = sys.modules.get(module_name)
        if not isinstance(module, ModuleType) or not hasattr(module, "__fake__"):
            module = ModuleType(module_name)
            module.__fake__ = True  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module_name, module)
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append((arguments, options))
            return answer

        setattr(module, function, call)
        return calls

    return put


@dataclass(frozen=True)
class Result:
    """As the runner's."""

    artifacts: dict[str, Artifact]
    built: int = 2
    reused: int = 1
    seconds: float = 61.4


@pytest.fixture
def model(workspace: Workspace) -> Artifact:
    artifact = workspace.make("model", "demo-aligned", lambda job: {"parameters": 3})[0]
    workspace.point("first-model", artifact)
    return artifact


def test_demo(ownlm: Command, install: Install, model: Artifact, workspace: Workspace) -> None:
    recipes = install("ownlm.recipe.demo.demo_recipe", "the recipe")
    runs = install("ownlm.recipe.runner.run", Result({"model": model}))
    done = ownlm("demo", "--yes", "--minutes", 2, "--port", 9000)
    assert done.code == 0
    assert recipes == [((None,), {})]
    [((recipe, place, _), options)] = runs
    assert (recipe, place.root) == ("the recipe", workspace.root)
    again = ["demo", "--minutes", "2"]
    assert options == {"minutes": 2.0, "open_browser": False, "port": 9000, "command": again}
    assert "Nothing leaves this machine." in done.out
    assert "about 2 minutes" in done.out
    assert "Done: 2 built, 1 reused, in 1 min 1 s." in done.out
    assert "Next: ownlm chat first-model" in done.out


def test_demo_of_a_folder(ownlm: Command, install: Install, model: Artifact, tmp_path: Path) -> None:
    recipes = install("ownlm.recipe.demo.demo_recipe")
    runs = install("ownlm.recipe.runner.run", Result({"model": model}))
    told = ownlm("demo", tmp_path, "--json").json
    assert runs[0][1]["command"] == ["demo", str(tmp_path)]
    assert recipes == [((tmp_path,), {})]
    assert (told["built"], told["reused"], told["model"]) == (2, 1, "first-model")
    assert told["artifacts"]["model"]["id"] == model.id


def test_demo_asks_on_a_terminal(ownlm: Command, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    install("ownlm.recipe.demo.demo_recipe")
    runs = install("ownlm.recipe.runner.run", Result({}))
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert ownlm("demo").code == 0
    assert runs == []


def test_run(ownlm: Command, install: Install, model: Artifact, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: mine\n", "utf-8")
    loads = install("ownlm.recipe.schema.load_recipe", "the recipe")
    runs = install("ownlm.recipe.runner.run", Result({"model": model}))
    assert ownlm("run", recipe, "--minutes", 3).code == 0
    assert loads == [((recipe,), {})]
    assert runs[0][1] == {"minutes": 3.0, "command": ["run", str(recipe), "--minutes", "3"]}


def test_plan(ownlm: Command, install: Install) -> None:
    calls = install("ownlm.recipe.planner.plan_command")
    assert ownlm("plan", "--minutes", 5, "--corpus", "notes").code == 0
    assert calls[0][0][2:] == (5.0, "notes")


def test_align(ownlm: Command, install: Install, model: Artifact, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("{}\n", "utf-8")
    calls = install("ownlm.recipe.own_choices.align_pairs", model)
    done = ownlm("align", "first-model", "--pairs", pairs, "--minutes", 2, "--name", "mine", "--json")
    assert calls[0][0][:2] == ("first-model", pairs)
    assert calls[0][0][4:] == (2.0, "mine")
    assert done.json["id"] == model.id


def test_eval(ownlm: Command, install: Install, model: Artifact, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("name: x\n", "utf-8")
    calls = install("ownlm.evaluate.run.evaluate", model)
    assert ownlm("eval", "first-model", suite, "--json").json["id"] == model.id
    assert calls[0][0][:2] == ("first-model", suite)


def test_report(ownlm: Command, install: Install, model: Artifact) -> None:
    calls = install("ownlm.report.build.build_report", model)
    assert ownlm("report", "first-model").code == 0
    assert calls[0][0][0].id == model.id


def test_serve(ownlm: Command, install: Install) -> None:
    calls = install("ownlm.serve.run.serve")
    assert ownlm("serve", "a", "b", "--port", 9001, "--host", "0.0.0.0").code == 0
    names, _, host, port, _ = calls[0][0]
    assert (names, host, port) == (["a", "b"], "0.0.0.0", 9001)
    assert ownlm("serve").code == 0
    assert calls[1][0][0] == []


def test_tokenizer_show(ownlm: Command, workspace: Workspace) -> None:
    from ownlm.data.tokenizer import Tokenizer

    def build(job: Any) -> dict[str, Any]:
        Tokenizer.train(["def add(a, b):\n    return a + b\n"] * 20, 300).save(job.folder)
        return {}

    workspace.make("tokenizer", "demo", build)
    done = ownlm("tokenizer", "show")
    assert done.code == 0
    assert "fibonacci" not in done.out.splitlines()[0]
    told = ownlm("tokenizer", "show", "demo", "return a\n", "--json").json
    assert "".join(told["pieces"]) == "return a\n"
    assert len(told["tokens"]) == len(told["pieces"]) < 9
