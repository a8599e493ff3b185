"""A round of training in a process of its own."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ownlm.store.workspace import Workspace
from ownlm.studio.training import Round, Trainer, last_json
from studio_types import FAKE_ALIGN, make_models

LINE = '{"prompt": [], "chosen": "a", "rejected": "b"}\n'


def run(workspace: Workspace, command: Sequence[str], pairs: Path) -> tuple[Round, list[int]]:
    model = make_models(workspace)["aligned"]
    seen: list[int] = []

    async def wait() -> Round:
        trainer = Trainer(workspace, command, 1)
        round_ = trainer.start(model, pairs, 1, "yours")
        assert trainer.start(model, pairs, 1, "yours") is round_, "one at a time"
        while trainer.busy:
            await asyncio.sleep(0.05)
            seen.append(round_.step)
        return round_

    return asyncio.run(asyncio.wait_for(wait(), 30)), seen


def test_a_round(workspace: Workspace, tmp_path: Path) -> None:
    align, pairs = tmp_path / "align.py", tmp_path / "pairs.jsonl"
    align.write_text(FAKE_ALIGN, "utf-8")
    pairs.write_text(LINE, "utf-8")
    round_, steps = run(workspace, (sys.executable, str(align)), pairs)
    assert round_.state == "done", round_.error
    assert max(steps) > 0, "its steps were followed"
    assert round_.verdict["conclusion"] == "too few to tell"
    assert workspace.resolve("yours").id == round_.new_id


@pytest.mark.parametrize(
    ("code", "error"),
    [("import sys; print('so'); sys.exit('The pairs are empty.')", "The pairs are empty."),
     ("print('no json')", "code 0"), ("raise SystemExit(3)", "code 3")],
)  # fmt: skip
def test_a_command_that_fails(workspace: Workspace, tmp_path: Path, code: str, error: str) -> None:
    round_, _ = run(workspace, (sys.executable, "-c", code), tmp_path / "pairs.jsonl")
    assert round_.state == "failed"
    assert error in round_.error


def test_the_command_speaks_utf8(workspace: Workspace, tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps({'id': os.environ['PYTHONUTF8']}))"
    round_, _ = run(workspace, (sys.executable, "-c", code), tmp_path / "pairs.jsonl")
    assert round_.new_id == "1"


def test_a_command_that_is_not_there(workspace: Workspace, tmp_path: Path) -> None:
    round_, _ = run(workspace, (str(tmp_path / "nothing"),), tmp_path / "pairs.jsonl")
    assert round_.state == "failed"
    assert "could not be started" in round_.error


def test_the_last_line_is_the_result() -> None:
    assert last_json('words\n{"a": 1}\n') == {"a": 1}
    assert last_json("") is None
    assert last_json('{"a": 1}\nmore') is None
    assert last_json("[1]") is None
