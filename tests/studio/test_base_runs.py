"""Reading every pre-training of a workspace, to compare them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace
from ownlm.studio.base_runs import AXES, BaseRuns, outcomes
from studio_types import curve, make_models, write_lines

PLAN: dict[str, Any] = {
    "minutes": 8.0, "machine": "a machine", "kernels": {"precision": "bfloat16"}, "layers": 8, "width": 256,
    "context": 512, "rows": 32, "vocabulary": 4096, "parameters": 4_930_000,
    "rates": {"matrices": 0.02, "embeddings": 0.01},
}  # fmt: skip


def make(workspace: Workspace, kind: str, name: str, content: Any, **more: Any) -> Artifact:
    def build(target: Build) -> dict[str, Any]:
        for file, text in content.items():
            (target.folder / file).write_text(text, "utf-8")
        return more.get("metrics", {})

    return workspace.make(kind, name, build, inputs=more.get("inputs", {}), settings=more.get("settings", {}))[0]


def inputs(workspace: Workspace, corpus: str = "packages") -> dict[str, str]:
    """A plan, and tokens of a corpus."""
    source = make(workspace, "corpus", corpus, {"text": corpus}, settings={"of": corpus})
    tokens = make(workspace, "tokens", corpus, {"ids": corpus}, inputs={"corpus": source.id})
    plan = make(workspace, "plan", "plan", {"plan.json": json.dumps(PLAN)})
    return {"plan": plan.id, "tokens": tokens.id}


def base(workspace: Workspace, name: str, seed: int, rows: list[dict[str, Any]], **metrics: Any) -> Artifact:
    return make(
        workspace, "model", name, {"metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows)},
        inputs=inputs(workspace), settings={"stage": "base", "objective": "pretrain", "seed": seed, "replay": "10%"},
        metrics=metrics,
    )  # fmt: skip


def test_an_empty_workspace(workspace: Workspace) -> None:
    assert BaseRuns(workspace).all() == []


def test_only_base_models_are_listed_the_newest_first(workspace: Workspace) -> None:
    made = make_models(workspace)
    other = base(workspace, "other", 1, curve(50, 8, 2, True))
    found = BaseRuns(workspace).all()
    assert [run.id for run in found] == [other.id, made["base"].id]
    assert found[1].label.endswith(", 1.254")


def test_settings_and_outcomes(workspace: Workspace) -> None:
    rows = [row | {"steps": 80} for row in curve(50, 8, 2, True)]
    metrics = {"steps": 50, "tokens": 50 * 16_384, "seconds": 30.0, "tokens_per_second": 27_307, "utilisation": 0.614,
               "skipped": 2, "heldout_bits_per_byte": 2.0511, "forecast": {"heldout_bits_per_byte": 2.11}}  # fmt: skip
    base(workspace, "m", 3, rows, **metrics)
    runs = BaseRuns(workspace)
    [run] = runs.all()
    settings = dict(run.settings)
    assert settings["Corpus"] == f"packages, {run.corpus[:6]}"
    assert settings["Layers × width"] == "8 × 256"
    assert settings["Tokens a step"] == "16,384"
    assert settings["Learning rates"] == "matrices 0.02, embeddings 0.01"
    assert (settings["Seed"], settings["Replay"], settings["Minutes planned"]) == ("3", "10%", "8")
    told = dict(outcomes(run, runs.trace(run)))
    assert told["Steps made"] == "50 of 80 planned"
    assert told["Held-out bits per byte"] == "2.051"
    assert (told["Time"], told["Share of the matmul rate"], told["Steps left out"]) == ("30 s", "61 %", "2")


def test_curves_by_steps_tokens_and_seconds(workspace: Workspace) -> None:
    rows = curve(1000, 8, 2, True)
    rows[-1] |= {"tokens": 16_384_000, "elapsed": 600.5}
    base(workspace, "m", 0, rows)
    runs = BaseRuns(workspace)
    trace = runs.trace(runs.all()[0])
    assert list(trace.curves) == list(AXES)
    ends = {key: points[-1][0] for key, points in trace.curves.items()}
    assert ends == {"step": 1000, "tokens": 16.384, "elapsed": 600.5}
    assert all(len(points) <= 300 for points in trace.curves.values())
    assert trace.curves["step"][-1][1] == pytest.approx(2, rel=0.05)


def test_a_run_without_bits_per_byte_or_with_none_has_no_points(workspace: Workspace) -> None:
    nats = base(workspace, "nats", 0, curve(5, 8, 2, False))
    gaps = base(workspace, "gaps", 1, [{"step": 1, "bits_per_byte": None}, {"step": 2, "bits_per_byte": 2.5}])
    runs = BaseRuns(workspace)
    traces = {run.id: runs.trace(run) for run in runs.all()}
    assert traces[nats.id].curves["step"] == []
    assert traces[gaps.id].curves == {"step": [(2.0, 2.5)], "tokens": [], "elapsed": []}


def test_a_run_that_goes_on_grows_and_then_is_finished(workspace: Workspace) -> None:
    base(workspace, "old", 0, curve(20, 8, 2, True))
    given = inputs(workspace)
    folder = workspace.root / ".building" / "model-m-abc"
    (folder / "run-state").mkdir(parents=True)
    build = {"kind": "model", "name": "m", "id": "abc", "inputs": given, "pid": os.getpid(),
             "settings": {"stage": "base", "seed": 7}, "started": "2001-01-01T00:00:00+00:00"}  # fmt: skip
    (folder / "run-state" / "build.json").write_text(json.dumps(build), "utf-8")
    rows = curve(30, 8, 2, True)
    write_lines(folder / "metrics.jsonl", rows[:10])
    runs = BaseRuns(workspace)
    (workspace.root / ".locks").mkdir(exist_ok=True)
    with FileLock(workspace.root / ".locks" / "abc.lock"):
        run = runs.all()[0]
        assert (run.id, run.finished, run.label) == ("abc", False, "m, 2001-01-01, not finished")
        assert dict(run.settings)["Seed"] == "7"
        assert runs.trace(run).curves["step"][-1][0] == 10
        write_lines(folder / "metrics.jsonl", rows[:25])
        trace = runs.trace(run)
        assert trace.curves["step"][-1][0] == 25
        assert dict(outcomes(run, trace))["Steps made"] == "25 of 30 planned"
    shutil.rmtree(folder)
    finished = base(workspace, "m", 7, rows, heldout_bits_per_byte=2.0)
    assert runs.all()[0].id == finished.id
    assert runs.trace(runs.all()[0]).curves["step"][-1][0] == 30


def test_a_finished_run_is_read_once(workspace: Workspace) -> None:
    artifact = base(workspace, "m", 0, curve(20, 8, 2, True))
    runs = BaseRuns(workspace)
    before = runs.trace(runs.all()[0])
    (artifact.path / "metrics.jsonl").unlink()
    assert runs.trace(runs.all()[0]) is before


@pytest.mark.parametrize("lost", ["plan", "tokens", "corpus"])
def test_what_a_run_was_made_from_may_be_gone(workspace: Workspace, lost: str) -> None:
    base(workspace, "m", 0, curve(20, 8, 2, True))
    workspace.remove(workspace.artifacts(lost)[0])
    [run] = BaseRuns(workspace).all()
    settings = dict(run.settings)
    assert settings["Seed"] == "0"
    assert settings["Layers × width" if lost == "plan" else "Corpus"] == "–"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"rates": 3, "kernels": [], "rows": "x", "layers": {}}'])
def test_a_plan_that_cannot_be_read_hides_no_run(workspace: Workspace, content: str) -> None:
    plan = make(workspace, "plan", "p", {"plan.json": content})
    make(workspace, "model", "m", {"metrics.jsonl": "{}\n"}, inputs={"plan": plan.id}, settings={"stage": "base"})
    [run] = BaseRuns(workspace).all()
    assert run.name == "m"
    assert dict(run.settings)["Parameters"] == "–"


def test_a_folder_that_vanishes_has_no_curve(workspace: Workspace, tmp_path: Path) -> None:
    artifact = base(workspace, "m", 0, curve(20, 8, 2, True))
    runs = BaseRuns(workspace)
    [run] = runs.all()
    shutil.rmtree(artifact.path)
    assert runs.trace(run).curves["step"] == []
