"""`ownlm pretrain` in the processes that torchrun starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace
from pretrain_program import torchrun
from small_run import write_documents

pytestmark = pytest.mark.long


def curve(model: Artifact) -> list[float]:
    return [json.loads(line)["loss"] for line in (model.path / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """From scratch, then continued with a teacher's help or a replay: the same curves, one model, one voice."""
    code, prose = write_documents(tmp_path / "code", 12, 0), write_documents(tmp_path / "prose", 0, 12)
    runs = (
        ("base", code, ()),
        ("further", prose, ("--init", "base", "--replay", "25%")),
        ("student", prose, ("--teacher", "base", "--steps", 10)),
    )
    workspace = Workspace(tmp_path / "workspace")
    for name, folder, more in runs:
        made: list[tuple[Artifact, list[float]]] = []
        for processes in (1, 2):
            if made:
                workspace.remove(made[0][0])
            done = torchrun(processes, workspace.root, "pretrain", folder, *more, "--name", name, "--device", "cpu")
            assert done.returncode == 0, done.stderr[-4000:]
            assert done.stdout.count("Next: ") == 1
            model = workspace.resolve(name)
            model.verify()
            made.append((model, curve(model)))
        (one, expected), (two, found) = made
        assert one.id == two.id and len(found) == one.metrics["steps"]
        assert found == pytest.approx(expected, abs=1e-3)
        assert two.metrics["tokens"] == one.metrics["tokens"]
        assert two.metrics["heldout_bits_per_byte"] == pytest.approx(one.metrics["heldout_bits_per_byte"], abs=1e-3)
    again = torchrun(2, workspace.root, "pretrain", code, "--name", "base", "--device", "cpu")
    assert again.returncode == 0 and "(Built before.)" in again.stdout, again.stderr[-4000:]


def test_a_mistake_is_told_once_and_ends_all(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path, "pretrain", "--corpus", "missing")
    assert done.returncode != 0
    assert done.stderr.count("The corpus 'missing' is not known") == 1
    done = torchrun(2, tmp_path, "pretrain", "--tensor-parallel", 3, write_documents(tmp_path / "documents"))
    assert done.returncode != 0 and "--tensor-parallel 3 divides each matrix among 3 processes" in done.stderr
