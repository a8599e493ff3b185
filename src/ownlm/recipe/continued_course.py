"""The course of continued pre-training: what fits the time and the memory for a model whose size is given."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe import rules
from ownlm.recipe.course import Course
from ownlm.recipe.measure import Machine, choose_device, measure_machine, step_seconds
from ownlm.recipe.memory import Memory, fit_memory, training_memory
from ownlm.recipe.planner import COMPILE_SECONDS, FEWEST_STEPS, MOST_ROWS, SLACK, efficiency, shares
from ownlm.recipe.schema import check_budget
from ownlm.runtime.device import machine_name
from ownlm.runtime.errors import BudgetError
from ownlm.runtime.threads import thread_budget

GENTLER = (0.25, 0.02)
"""Of the rates for new models: the matrices' share, and that of embeddings, head and vectors, which forget fastest."""
REWARMED = 0.05
"""The share of the steps in which the rates rise again (Gupta et al. 2023, arXiv 2308.04014)."""
MEASURED_BYTES = 400_000
"""Held-out bytes of each domain that are measured, before and after."""


def plan_course(config: DecoderConfig, minutes: float, device: str | None) -> dict[str, Any]:
    """A `Course` as JSON data, with what people want to know beside it. Measures the machine and a training step.

    Raises:
        BudgetError: too little time for a few steps, or too little memory for one window.
        OwnLMError: a device that is not here.
    """
    check_budget(minutes)
    threads = thread_budget()
    torch.set_num_threads(threads)
    machine = measure_machine(choose_device(device))
    seconds = shares(minutes, whole_chain=False).pretrain
    # Experts choose their tokens by their numbers: no graph of the whole block.
    compiled = machine.compiler is not None and seconds > 4 * COMPILE_SECONDS and config.experts is None
    window = min(config.context, rules.context(config.parameters).value)
    shorter = config.with_(context=window)
    rate = machine.matmul_gflops[machine.precision] * 1e9
    flops = rate * efficiency(config.width, compiled, machine.device) * seconds
    windows = max(1, rules.batch(flops, window).value // window)
    kernels, rows, memory = _fitting(shorter, machine, compiled, windows)
    micro_batches = max(1, windows // rows)
    step = step_seconds(shorter, kernels, rows, micro_batches, device=machine.device)
    training = seconds - (COMPILE_SECONDS if compiled else 0)
    steps = int(training / (step * SLACK))
    if steps < FEWEST_STEPS:
        raise BudgetError(
            f"{minutes:g} minutes are too few on this machine: a training step of a model of "
            f"{config.parameters / 1e6:.0f} million parameters takes {step:.1f} s. Give more, or a smaller model."
        )
    rates = rules.rates(config.width, rows * micro_batches * window).value.scaled(*GENTLER)
    course = Course(
        machine.device, threads, kernels, window, rows, micro_batches, steps, max(REWARMED, rules.warmup(steps).value),
        rules.decay().value, rates, rate, MEASURED_BYTES,
    )  # fmt: skip
    return {
        **dataclasses.asdict(course),
        "minutes": minutes,
        "machine": machine_name(),
        "parameters": config.parameters,
        "vocabulary": config.vocabulary,
        "layers": config.layers,
        "width": config.width,
        "batch_tokens": course.batch_tokens,
        "seconds": round(steps * step, 1),
        "memory": dataclasses.asdict(memory),
    }


def _fitting(config: DecoderConfig, machine: Machine, compiled: bool, windows: int) -> tuple[Kernels, int, Memory]:
    """Kernels, the windows of a micro-batch that fit the memory, and what they take."""
    kernels = Kernels(machine.precision, "tiled" if machine.device == "cpu" else "sdpa", compiled)
    available = float("inf") if machine.memory is None else machine.memory
    found = fit_memory(config, kernels, min(windows, MOST_ROWS[machine.device]), available)
    if found is not None:
        return found
    smallest = training_memory(config, Kernels(recompute=True), 1).total
    raise BudgetError(
        f"{available / 1e9:.1f} GB of free memory are too few: training this model of {config.parameters / 1e6:.0f} "
        f"million parameters takes {smallest / 1e9:.1f}. Take a smaller model or a larger machine, or learn an adapter."
    )
