"""Stage 2: measure this machine, then fix size, steps and kernels for the budget."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.runtime.device import machine_name
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 2


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The plan artifact of this corpus, budget and machine: measured once, then kept."""

    def build(target: Build) -> dict[str, Any]:
        from ownlm.recipe.planner import make_plan
        from ownlm.recipe.stages import instruct

        instruct.check(context)
        plan = make_plan(context.minutes, context.artifacts["corpus"].metrics, context.screen)
        plan.write(target.folder)
        return {"forecast": dataclasses.asdict(plan.forecast), "parameters": plan.parameters, "steps": plan.steps}

    return context.workspace.make(
        "plan",
        context.recipe.name,
        build,
        inputs=context.inputs("corpus"),
        settings={"minutes": context.minutes, "machine": machine_name(), "torch": version("torch")},
        code_version=CODE_VERSION,
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What is going to be trained, and what it should come to."""
    plan = context.plan
    rate = plan.matmul_gflops[plan.kernels.precision]
    forecast = plan.forecast
    return (
        f"This machine multiplies at {rate:,.0f} GFLOP/s in {plan.kernels.precision}. {plan.minutes:g} minutes are "
        f"enough for a model of {plan.parameters / 1e6:.1f} million parameters to read {forecast.tokens / 1e6:.1f} "
        f"million tokens in {forecast.seconds:.0f} s; forecast: {forecast.heldout_bits_per_byte:.2f} bits per byte "
        f"on held-out text ({forecast.low:.2f} to {forecast.high:.2f})."
    )
