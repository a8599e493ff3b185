"""The house: rooms import downward only, start is light, extensions come from outside, files stay small."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ownlm
from ownlm.cli.verbs import VERBS

ROOT = Path(__file__).parent.parent
PACKAGE = Path(ownlm.__file__).parent
ROOMS = (
    "cli", "recipe", "studio", "serve", "report", "evaluate", "audit", "explain", "prompt", "align", "train", "engine",
    "model", "data", "score", "sandbox", "render", "store", "runtime",
)  # fmt: skip
"""From the top to the bottom: a room may import those after it."""
STRANGERS = {("train", "engine"), ("engine", "train")}
OUTSIDE = ("api", "__main__", "__init__")
"""Files above the rooms."""
LONGEST_FILE = 450


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of this package, also inside functions."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"ownlm.{alias.name}" for alias in node.names] if module == "ownlm" else [module]
            if node.level:
                names = ["ownlm.relative"]
        for name in names:
            parts = name.split(".")
            if parts[0] == "ownlm" and len(parts) > 1:
                yield node.lineno, parts[1]


def upward(room: str, target: str) -> bool:
    """Whether `room` may not import `target`."""
    if room in OUTSIDE or target == room or target.startswith("__"):
        return False
    if target not in ROOMS or room not in ROOMS:
        return True
    return ROOMS.index(target) < ROOMS.index(room) or (room, target) in STRANGERS


def test_rooms_import_downward_only() -> None:
    wrong = []
    for path in sources():
        for line, target in imported_rooms(ast.parse(path.read_text("utf-8"))):
            if upward(room_of(path), target):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports ownlm.{target}")
    assert not wrong, "\n".join(wrong)


def test_the_import_rule_can_fail() -> None:
    tree = ast.parse("def f():\n    from ownlm.cli import main\n    import ownlm.store\n    from . import x")
    assert list(imported_rooms(tree)) == [(2, "cli"), (3, "store"), (4, "relative")]
    assert upward("store", "cli")
    assert upward("train", "engine")
    assert upward("engine", "train")
    assert upward("data", "relative")
    assert not upward("cli", "store")
    assert not upward("align", "train")
    assert not upward("cli", "__version__")


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(ROOMS)


def test_files_stay_small() -> None:
    long = {str(path.relative_to(PACKAGE)): count for path in sources() if (count := line_count(path)) > LONGEST_FILE}
    assert not long, f"these ask to be two: {long}"


def line_count(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_no_bash_in_what_users_run() -> None:
    users = [*sources(), ROOT / "dev.py", ROOT / "Makefile"]
    for path in users:
        text = path.read_text("utf-8")
        assert "shell=True" not in text, path
        assert "os.system(" not in text, path
        assert "/bin/bash" not in text and "/bin/sh" not in text, path
    assert not list(PACKAGE.rglob("*.sh"))


def modules_after(code: str) -> set[str]:
    """The modules that are loaded after running `code` in a fresh interpreter."""
    script = f"import sys\n{code}\nsys.stderr.write('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stderr.splitlines()[-1].split()}


HEAVY = {"torch", "nicegui", "fastapi", "pyarrow", "transformers", "scipy", "matplotlib", "numpy", "sqlalchemy"}


def test_importing_the_package_is_light() -> None:
    assert not modules_after("import ownlm") & HEAVY
    command = [sys.executable, "-X", "importtime", "-c", "import ownlm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ownlm" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_nothing_heavy(verb: str) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    code = f"from ownlm.cli.main import main\nassert main({arguments!r}) == 0"
    assert not modules_after(code) & HEAVY


def test_help_is_there_at_once() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ownlm", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.4


PACKAGE_FROM_OUTSIDE = """
from ownlm.score.text import Scorer
from ownlm.score.verdict import Verdict

scorer = Scorer("politeness", lambda answer, target: float(target in answer.text), lambda target: None)

class Letters:
    name = "letters"
    def applies(self, document): return document.format == "letter"
    def examples(self, document): return iter(())
    def verifiable(self, example): return True
    def verify(self, example, answer, finished): return Verdict(passed=finished, reasons=(), value=1.0)
    def gold(self, example, answer): return 0.0
    def starters(self): return ["Dear Sir or Madam,"]
    def watch_prompts(self): return ["Dear", "Yours", "I"]

kit = Letters()

def quiet(document):
    return "shouts" if document.text.isupper() else None
"""

USES_THEM = """
import json
from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.data.rules import first_fault, load_rules
from ownlm.recipe.kit import find_kit
from ownlm.runtime.extensions import ExtensionError, extension_names, load_extension
from ownlm.score.text import Answer, find_scorer

scorer = find_scorer("politeness")
try:
    load_extension("ownlm.kits", "bad")
except ExtensionError as caught:
    error = str(caught)
print(json.dumps({
    "scores": [scorer.score(Answer(text), "please") for text in ("yes, please", "now")],
    "kits": extension_names("ownlm.kits"),
    "starters": find_kit("letters").starters(),
    "rules": [first_fault(Document("a", "a", "", "prose", "txt", (TextPart(text),)), load_rules(["quiet"]))
              for text in ("LOUD", "low")],
    "error": error,
}))
"""


def test_a_package_from_outside_adds_a_scorer_a_rule_and_a_kit(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "polite").mkdir(parents=True)
    (site / "polite" / "__init__.py").write_text(PACKAGE_FROM_OUTSIDE, "utf-8")
    info = site / "polite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[ownlm.scorers]\npoliteness = polite:scorer\n\n[ownlm.rules]\nquiet = polite:quiet\n\n"
        "[ownlm.kits]\nletters = polite:kit\nbad = polite:missing\n",
        "utf-8",
    )
    command = [sys.executable, "-c", USES_THEM]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    told = json.loads(done.stdout)
    assert told["scores"] == [1.0, 0.0]
    assert {"letters", "python", "prose"} <= set(told["kits"])
    assert told["starters"] == ["Dear Sir or Madam,"]
    assert told["rules"] == ["shouts", None]
    assert "'bad'" in told["error"]
    assert "package polite" in told["error"]


def test_every_built_in_extension_can_be_loaded() -> None:
    from ownlm.runtime.extensions import GROUPS, load_extensions

    for group in GROUPS:
        load_extensions(group)


def test_every_requirement_is_pinned_and_torch_is_not() -> None:
    """dev.py picks torch for the machine; everything else is installed as it was tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    names = {canonical(re.split(r"[<>=!~;\[ ]", each)[0]) for each in wanted}
    assert names - pinned == {"torch"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
