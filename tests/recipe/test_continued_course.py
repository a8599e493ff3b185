"""What is planned for a model whose size is given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import tiny
from ownlm.model.config import Experts
from ownlm.recipe import continued_course
from ownlm.recipe.continued_course import GENTLER, plan_course
from ownlm.recipe.course import Course
from ownlm.recipe.measure import Machine
from ownlm.recipe.rules import rates
from ownlm.runtime.errors import BudgetError
from small_run import small_plan

CONFIG = tiny.config(context=2048, width=64, heads=4, head_dim=16, layers=4)


def planned(
    minutes: float = 10, config: Any = CONFIG, step: float = 0.05, **machine: Any
) -> tuple[dict[str, Any], list[Any]]:
    """A plan for a machine of the test's own, and what was measured for it."""
    rates_ = {"float32": 100.0, "bfloat16": 300.0}
    here = Machine(**{"matmul_gflops": rates_, "precision": "bfloat16", "compiler": "c++", "memory": 10**10, **machine})
    measured: list[Any] = []

    def step_seconds(*shape: Any, **options: Any) -> float:
        measured.append((*shape, options))
        return step

    threads = torch.get_num_threads()
    with (
        mock.patch.object(continued_course, "measure_machine", lambda device: here),
        mock.patch.object(continued_course, "choose_device", lambda device: here.device),
        mock.patch.object(continued_course, "step_seconds", step_seconds),
    ):
        found = plan_course(config, minutes, None)
    torch.set_num_threads(threads)
    return found, measured


def test_the_steps_fill_the_time(tmp_path: Path) -> None:
    found, [(config, kernels, rows, micro_batches, _)] = planned()
    assert 300 < found["steps"] * 0.05 < 600
    assert planned(minutes=20)[0]["steps"] > 1.8 * found["steps"]
    # What was measured is what is trained.
    assert (config.context, rows, micro_batches) == (found["context"], found["rows"], found["micro_batches"])
    assert found["batch_tokens"] == rows * micro_batches * config.context >= 4096
    assert kernels.compiled and kernels.attention == "tiled" and kernels.precision == "bfloat16"
    (tmp_path / "plan.json").write_text(json.dumps(found))
    course = Course.read(tmp_path / "plan.json")
    assert (course.steps, course.kernels, course.batch_tokens) == (found["steps"], kernels, found["batch_tokens"])
    assert course.peak_flops == 300e9


def test_a_model_is_read_in_shorter_windows_than_it_could() -> None:
    assert planned()[0]["context"] == 512
    assert planned(config=CONFIG.with_(context=64))[0]["context"] == 64


def test_rates_are_gentler_and_warmed_up_again() -> None:
    found, _ = planned()
    usual = rates(64, found["batch_tokens"]).value
    assert found["rates"]["matrices"] == pytest.approx(GENTLER[0] * usual.matrices)
    assert found["rates"]["embeddings"] == pytest.approx(GENTLER[1] * usual.embeddings)
    schedule = Course.of(small_plan()).schedule
    course = dataclasses.replace(Course.of(small_plan(10)), warmup=found["warmup"])
    factors = [course.schedule.factor(step) for step in range(course.steps)]
    assert factors[0] < 0.2 and max(factors) == 1.0 and factors[-1] < 0.05
    assert schedule.steps == 20


def test_little_memory_takes_fewer_windows_at_once_then_works_activations_out_again() -> None:
    large = CONFIG.with_(width=512, heads=8, head_dim=64, ffn=2048, layers=8)
    roomy = planned(config=large)[0]
    needed = roomy["memory"]
    states = sum(needed[part] for part in ("weights", "gradients", "optimiser"))
    tight = planned(config=large, memory=round((states + 0.3 * needed["activations"]) / 0.85))[0]
    assert tight["rows"] < roomy["rows"] and tight["micro_batches"] > roomy["micro_batches"]
    assert tight["batch_tokens"] == roomy["batch_tokens"] and not tight["kernels"]["recompute"]
    tightest = planned(config=large, memory=round((states + 0.075 * needed["activations"]) / 0.85))[0]
    assert tightest["kernels"]["recompute"]
    with pytest.raises(BudgetError, match="of free memory are too few"):
        planned(config=large, memory=states // 2)


def test_short_runs_experts_and_machines_without_a_compiler_are_not_compiled() -> None:
    experts = CONFIG.with_(experts=Experts(4, 2, 24, (0, 1)))
    for options in ({"minutes": 1.5}, {"config": experts}, {"compiler": None}):
        assert not planned(**options)[0]["kernels"]["compiled"]  # type: ignore[arg-type]


def test_a_gpu_attends_with_its_own_kernel() -> None:
    assert planned(device="cuda")[0]["kernels"]["attention"] == "sdpa"


def test_too_little_time() -> None:
    with pytest.raises(BudgetError, match="a training step of a model of .* takes 9.0 s"):
        planned(minutes=2, step=9.0)
    with pytest.raises(BudgetError, match="0.5 minutes are no budget"):
        planned(minutes=0.5)
