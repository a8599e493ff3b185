"""Recipes: what a file may say, and mistakes that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.recipe.demo import demo_recipe
from ownlm.recipe.schema import PYTHON, AlignPart, CorpusPart, Recipe, load_recipe
from ownlm.runtime.errors import OwnLMError, RecipeError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def load(path: Path, text: str) -> Recipe:
    path.write_text(text, "utf-8")
    return load_recipe(path)


def test_everything_that_can_be_said(path: Path) -> None:
    recipe = load(
        path,
        """
name: notes
sources: [texts, /abs/olute, python]
minutes: 3.5
seed: 7
kits: [prose]
suite: suites/mine.yaml
corpus: {max_megabytes: 2, heldout: 0.1, rules: [quiet]}
align: {objective: mine, beta: 0.2, samples: 4, chosen_weight: 0, temperature: 1}
""",
    )
    assert recipe == Recipe(
        "notes", (str(path.parent / "texts"), "/abs/olute", PYTHON), 3.5, 7, ("prose",),
        str(path.parent / "suites/mine.yaml"), CorpusPart(2, 0.1, ("quiet",)), AlignPart("mine", 0.2, 4, 0, 1), path,
    )  # fmt: skip


def test_what_is_not_said_has_a_default(path: Path) -> None:
    recipe = load(path, "sources: texts\ncorpus: {max_megabytes: null}\nsuite: null\n")
    assert recipe == Recipe("mine", (str(path.parent / "texts"),), path=path)
    assert recipe.minutes == 8


def test_folders_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    monkeypatch.setenv("HOME", "/home/me")
    recipe = load(tmp_path / "below" / "r.yaml", "sources: [texts, ../beside, ~/notes, ./python]\n")
    below = tmp_path / "below"
    assert recipe.sources == (str(below / "texts"), str(below / "../beside"), "/home/me/notes", str(below / "python"))


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("sources: x\nminuts: 3\n", 2, "unknown key 'minuts'; did you mean 'minutes'?"),
        ("sources: x\n\nalign:\n  beat: 3\n", 4, "unknown key 'beat'; did you mean 'beta'?"),
        ("corpus:\n  held_out: 0.1\nsources: x\n", 2, "unknown key 'held_out'; did you mean 'heldout'?"),
        ("sources: x\nzzz: 3\n", 2, "unknown key 'zzz'; there is: align, corpus"),
        ("sources: x\npath: /etc\n", 2, "unknown key 'path'"),
        ("sources: x\nminutes: soon\n", 2, "minutes takes a number between 0 and 1e+06, not 'soon'."),
        ("sources: x\nminutes: true\n", 2, "minutes takes a number"),
        ("sources: x\nminutes: .nan\n", 2, "minutes takes a number"),
        ("sources: x\nminutes: -1\n", 2, "minutes takes a number between 0"),
        ("sources: x\nseed: 1.5\n", 2, "seed takes a whole number"),
        ("sources: x\nalign:\n  samples: 1\n", 3, "samples takes a whole number between 2 and 64, not 1."),
        ("sources: x\ncorpus: {heldout: 0.9}\n", 2, "heldout takes a number between 0.001 and 0.5, not 0.9."),
        ("sources: x\ncorpus: 3\n", 2, "here belongs a mapping with the keys heldout, max_megabytes, rules."),
        ("sources: x\nalign:\n", 2, "here belongs a mapping with the keys beta"),
        ("sources: {a: b}\n", 1, "sources takes a list of names."),
        ("sources:\n  - x\n  - 3\n", 1, "sources takes a list of names."),
        ("sources: x\nkits: []\n", 2, "kits takes a list of names."),
        ("sources: x\nname: 3\n", 2, "name takes a text, not 3."),
        ("sources: x\nname:\n", 2, "name takes a text, not None."),
        ("sources: x\nname: ../up\n", 2, "name takes letters"),
        ("sources: x\nname: ''\n", 2, "name takes letters"),
        ("sources: x\nsuite: [a]\n", 2, "suite takes a text"),
        ("sources: x\nsources: y\n", 2, "stands here twice"),
        ("- sources\n", 1, "here belongs a mapping"),
        ("", 1, "here belongs a mapping"),
        ("sources: [x\n", 2, "this is not YAML"),
    ],
)
def test_mistakes_name_file_line_and_key(path: Path, text: str, line: int, fault: str) -> None:
    with pytest.raises(OwnLMError) as caught:
        load(path, text)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert fault in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["minutes: 3\n", "sources: []\n", "sources:\n", "sources: ''\n"])
def test_a_recipe_without_sources(path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match="a recipe needs `sources`: a list of folders, or `python`"):
        load(path, text)


def test_files_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(OwnLMError, match="mine.yaml cannot be read"):
        load_recipe(path)
    path.write_bytes(b"sources: \xff\n")
    with pytest.raises(OwnLMError, match="is not UTF-8"):
        load_recipe(path)


def test_the_file_name_must_serve_as_a_name(tmp_path: Path) -> None:
    """Artifacts are called after the recipe; a file with blanks in its name needs a `name` inside."""
    path = tmp_path / "my notes.yaml"
    with pytest.raises(OwnLMError, match="name takes letters"):
        load(path, "sources: x\n")
    assert load(path, "sources: x\nname: notes\n").name == "notes"


def test_the_demo_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo_recipe().sources == (PYTHON,)
    assert demo_recipe(Path("texts")).sources == (str(tmp_path / "texts"),)
    assert demo_recipe().name == "first-model"


def test_a_larger_budget_reads_more() -> None:
    sizes = [CorpusPart().settings(minutes, 0).max_bytes or 0 for minutes in (1, 2, 8, 60)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert CorpusPart(2.5).settings(60, 3).max_bytes == 2_500_000
