"""The planner, on machines that are made up: it measures nothing here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ownlm.cli.main import main
from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe import measure, planner
from ownlm.recipe.laws import fit_command
from ownlm.recipe.measure import Machine
from ownlm.recipe.plan import PLAN, Plan
from ownlm.recipe.planner import make_plan, plan_command, shares
from ownlm.recipe.scaling import ScalingLaw
from ownlm.recipe.shapes import LADDER
from ownlm.recipe.stages import instruct
from ownlm.recipe.texts import PYTHON_LEVEL, Text
from ownlm.runtime.errors import ArtifactNotFound, BudgetError
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

CORPUS = {"bytes": 12_000_000, "heldout_bytes": 600_000}
Pretend = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """`machine(gflops)`: what is measured from now on; a step takes what its operations need at a third of the rate."""

    def pretend(
        gflops: float, compiler: str | None = None, precision: Any = "float32", memory: int | None = None
    ) -> None:
        rates = {"float32": gflops, "bfloat16": gflops}

        def step_seconds(config: DecoderConfig, kernels: Kernels, rows: int, micro_batches: int, **_: Any) -> float:
            tokens = rows * micro_batches * config.context
            return tokens * config.training_flops_per_token(config.context) / (gflops * 1e9 / 3)

        def measure_machine(device: str) -> Machine:
            return Machine(rates, precision, compiler, device=device, memory=memory)

        monkeypatch.setattr(planner, "measure_machine", measure_machine)
        monkeypatch.setattr(planner, "step_seconds", step_seconds)
        monkeypatch.setattr(planner, "thread_budget", lambda: 1)

    pretend(300)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return pretend


@pytest.mark.parametrize("minutes", [1, 2, 8, 60, 600])
def test_the_shares_add_up_to_the_budget(minutes: float) -> None:
    parts = dataclasses.asdict(shares(minutes))
    assert sum(parts.values()) == pytest.approx(60 * minutes)
    assert all(value > 0 for value in parts.values())
    assert parts["pretrain"] == max(parts.values()) or minutes < 2


def test_more_compute_never_takes_a_smaller_model(machine: Pretend) -> None:
    sizes = []
    for gflops in (30, 100, 300, 1_000, 10_000, 100_000):
        machine(gflops)
        sizes.append(make_plan(8, CORPUS).parameters)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_more_minutes_never_take_a_smaller_model_and_forecast_less_loss(machine: Pretend) -> None:
    machine(1_000)
    plans = [make_plan(minutes, CORPUS) for minutes in (2, 8, 60, 600)]
    assert [p.parameters for p in plans] == sorted(p.parameters for p in plans)
    forecasts = [plan.forecast.heldout_bits_per_byte for plan in plans]
    assert forecasts == sorted(forecasts, reverse=True)
    assert forecasts[0] > forecasts[-1]


@pytest.mark.parametrize("compiler", [None, "g++"])
@pytest.mark.parametrize("minutes", [2, 8, 30])
def test_a_plan_fits_its_budget(machine: Pretend, minutes: float, compiler: str | None) -> None:
    machine(300, compiler)
    plan = make_plan(minutes, CORPUS)
    assert plan.forecast.seconds <= plan.seconds.pretrain
    assert plan.forecast.tokens == plan.steps * plan.batch_tokens
    assert plan.batch_tokens == plan.rows * plan.micro_batches * plan.context
    assert plan.forecast.low < plan.forecast.heldout_bits_per_byte < plan.forecast.high
    assert any(size.width == plan.width and size.layers == plan.layers for size in LADDER)
    assert plan.config(plan.vocabulary).parameters == plan.parameters
    assert plan.dpo_length <= plan.context
    assert compiler is not None or not plan.kernels.compiled
    counts = (plan.sft_steps, plan.dpo_steps, plan.align_prompts, plan.heldout_prompts, plan.heldout_bytes)
    assert min(counts) > 0


def test_the_precision_is_the_measured_one(machine: Pretend) -> None:
    machine(300, precision="bfloat16")
    plan = make_plan(2, CORPUS)
    assert plan.kernels.precision == "bfloat16"
    assert plan.peak_flops == 300e9


def test_every_choice_has_its_reason(machine: Pretend) -> None:
    plan = make_plan(8, CORPUS)
    names = [name for name, _, _ in plan.reasons]
    assert {"precision", "compilation", "size", "vocabulary", "batch", "steps", "learning rate"} <= set(names)
    assert len(set(names)) == len(names)
    for name, value, why in plan.reasons:
        assert value, name
        assert len(why) > 10, name


def test_a_plan_survives_its_file(machine: Pretend, tmp_path: Path) -> None:
    machine(300, "g++", "bfloat16")
    plan = make_plan(8, CORPUS)
    plan.write(tmp_path)
    assert Plan.read(tmp_path / PLAN) == plan


@pytest.mark.parametrize("minutes", [0.5, 0.0, -3.0, math.nan, math.inf])
def test_a_budget_that_is_none(machine: Pretend, minutes: float) -> None:
    with pytest.raises(BudgetError, match="minutes are no budget: the whole chain, however small, needs 1") as caught:
        make_plan(minutes, CORPUS)
    assert caught.value.exit_code == 2


def test_a_machine_too_slow_for_the_smallest_model(machine: Pretend) -> None:
    machine(0.5)
    with pytest.raises(BudgetError, match="2 minutes are too few on this machine: a training step .* takes"):
        make_plan(2, CORPUS)


# ---- the command


@pytest.fixture
def corpus(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """A corpus of which only the size matters."""
    monkeypatch.setattr(instruct, "check", lambda context: None)
    monkeypatch.setattr(planner, "measure_text", lambda folder: Text(level=1.2 * PYTHON_LEVEL))
    return workspace.make("corpus", "notes", lambda build: dict(CORPUS))[0]


def test_the_plan_is_kept(
    machine: Pretend, corpus: Artifact, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_command(workspace, Screen(quiet=True), 8, None)
    assert first.inputs == {"corpus": corpus.id}
    monkeypatch.setattr(planner, "measure_machine", lambda: pytest.fail("measured again"))
    assert plan_command(workspace, Screen(quiet=True), 8, "notes").id == first.id
    machine(300)
    assert plan_command(workspace, Screen(quiet=True), 9, None).id != first.id


def test_the_command_explains(machine: Pretend, corpus: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--minutes", "8"]) == 0
    out = capsys.readouterr().out
    assert "8 minutes are enough for a model of" in " ".join(out.split())
    for name in ("precision", "size", "learning rate"):
        assert name in out
    assert main(["plan", "--minutes", "0.1"]) == 2
    assert "0.1 minutes are no budget" in capsys.readouterr().err


def test_without_a_corpus_there_is_nothing_to_plan_for(workspace: Workspace) -> None:
    with pytest.raises(ArtifactNotFound, match="There is no corpus to plan for yet"):
        plan_command(workspace, Screen(quiet=True), 8, None)


# ---- the law behind it


def test_the_law_falls_with_size_and_text_and_repeats_are_worth_less() -> None:
    law = ScalingLaw(floor=0.6, a=0.4, alpha=0.3, b=1.35, beta=0.32, spread=0.08)
    assert law.bits_per_byte(4e6, 20e6, 20e6) < law.bits_per_byte(2e6, 20e6, 20e6)
    assert law.bits_per_byte(4e6, 40e6, 40e6) < law.bits_per_byte(4e6, 40e6, 10e6) < law.bits_per_byte(4e6, 10e6, 10e6)
    assert law.bits_per_byte(1e12, 1e15, 1e15) == pytest.approx(law.floor, abs=0.01)
    assert law.bits_per_byte(1e6, 5e5, 1e6) == pytest.approx(law.floor + law.a + law.b * 0.5**-law.beta)


# ---- memory, devices, texts and laws of one's own


def test_a_small_memory_takes_recomputation_then_smaller_parts_then_a_smaller_model(machine: Pretend) -> None:
    machine(100_000, memory=None)
    free = make_plan(600, CORPUS)
    assert free.memory is not None and not free.kernels.recompute
    seen = []
    for share in (2.0, 0.6, 0.2, 0.05):
        memory = int(share * free.memory.total)
        machine(100_000, memory=memory)
        plan = make_plan(600, CORPUS)
        assert plan.memory is not None and plan.memory.total <= memory
        seen.append((plan.parameters, plan.kernels.recompute))
    assert seen[0] == (free.parameters, False)
    assert any(recompute for _, recompute in seen)
    assert seen[-1][0] < free.parameters
    machine(100_000, memory=1_000_000)
    with pytest.raises(BudgetError, match="1 MB of free memory are too few: training the smallest model takes"):
        make_plan(600, CORPUS)


def test_more_compute_takes_larger_batches_in_parts(machine: Pretend) -> None:
    machine(1_000_000)
    small, large = (make_plan(minutes, CORPUS) for minutes in (2, 6000))
    assert large.batch_tokens > small.batch_tokens
    assert large.micro_batches > 1
    assert large.batch_tokens == large.rows * large.micro_batches * large.context


def test_the_schedule_is_the_plan_s(machine: Pretend) -> None:
    plan = make_plan(2, CORPUS)
    schedule = plan.schedule
    assert (schedule.steps, schedule.warmup, schedule.decay) == (plan.steps, plan.warmup, plan.decay)
    assert dataclasses.replace(plan, steps=7).schedule.steps == 7


def test_without_the_later_stages_pre_training_has_the_time(machine: Pretend) -> None:
    whole, alone = (make_plan(8, CORPUS, None, None, None, None, chain) for chain in (True, False))
    assert sum(dataclasses.asdict(shares(8, False)).values()) == pytest.approx(480)
    assert alone.forecast.seconds > 1.4 * whole.forecast.seconds
    assert alone.forecast.heldout_bits_per_byte < whole.forecast.heldout_bits_per_byte


def test_a_harder_text_is_forecast_to_cost_more(
    machine: Pretend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(planner, "measure_text", lambda folder: Text(level=1.5 * PYTHON_LEVEL))
    average, hard = make_plan(8, CORPUS), make_plan(8, CORPUS, None, tmp_path)
    ratio = hard.forecast.heldout_bits_per_byte / average.forecast.heldout_bits_per_byte
    assert ratio == pytest.approx(1.5, rel=0.01)
    assert "x 1.50 for this text" in hard.law


def test_a_slow_size_is_measured_and_left_in_a_long_run(machine: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine trains thirty times slower than its matmul rate promises: the first choice is far too large."""
    machine(100_000)
    measured: list[int] = []

    def slow(config: DecoderConfig, kernels: Kernels, rows: int, micro_batches: int, **_: Any) -> float:
        measured.append(config.parameters)
        tokens = rows * micro_batches * config.context
        return tokens * config.training_flops_per_token(config.context) / (100_000e9 / 30)

    monkeypatch.setattr(planner, "step_seconds", slow)
    plan = make_plan(120, CORPUS)
    assert len(measured) == len(set(measured)) > 1
    assert plan.parameters < measured[0]


def test_a_law_of_one_s_own_runs_is_used_and_named(
    machine: Pretend, corpus: Artifact, workspace: Workspace, tmp_path: Path
) -> None:
    before = plan_command(workspace, Screen(quiet=True), 8, None)
    table = tmp_path / "runs.csv"
    dear = ScalingLaw(floor=2.0, a=0.6, alpha=0.4, b=1.3, beta=0.3, spread=0)
    rows = [f"{n:g},{d:g},{dear.at(n, d)}" for n in (1e6, 4e6, 2e7) for d in (1e6, 1e7, 1e8)]
    table.write_text("\n".join(["parameters,bytes,bits_per_byte", *rows]), "utf-8")
    law = fit_command(workspace, Screen(quiet=True), table, "notes")
    after = plan_command(workspace, Screen(quiet=True), 8, None)
    assert after.id != before.id
    assert after.inputs == {"corpus": corpus.id, "law": law.id}
    plan = Plan.read(after.path / PLAN)
    assert plan.forecast.heldout_bits_per_byte > 2.0
    reasons = {name: why for name, _, why in plan.reasons}
    assert reasons["bits per byte"].startswith(f"a law fitted to 9 runs ({law.label})")


def test_a_device_that_is_not_here(corpus: Artifact, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--device", "abacus"]) == 2
    assert "--device abacus: there is no such device" in capsys.readouterr().err
    assert not workspace.builds()


def test_the_device_is_part_of_the_plan(
    machine: Pretend, corpus: Artifact, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "choose_device", lambda asked: asked or "cpu")
    monkeypatch.setattr(measure, "choose_device", lambda asked: asked or "cpu")
    machine(100_000, "triton", "bfloat16")
    plans = [plan_command(workspace, Screen(quiet=True), 8, None, device=each) for each in (None, "cuda")]
    assert plans[0].id != plans[1].id
    gpu = Plan.read(plans[1].path / PLAN)
    assert (gpu.device, gpu.kernels.attention, gpu.rows) == ("cuda", "sdpa", gpu.batch_tokens // gpu.context)
