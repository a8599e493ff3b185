"""Stage 2: measure this machine, then fix size, steps and kernels for the budget."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.runtime.device import machine_name
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 3


def make(context: RunContext, device: str | None = None, *, whole_chain: bool = True) -> tuple[Artifact, bool]:
    """The plan artifact of this corpus, budget and machine: measured once, then kept.

    `device` None takes the fastest. Without `whole_chain` pre-training gets all the time. A scaling law that was fitted
    to runs on this corpus is one of the plan's inputs.

    Raises:
        OwnLMError: a device that is not here.
        BudgetError: as `make_plan`.
    """
    from ownlm.recipe.laws import find_law

    if device is not None:
        from ownlm.recipe.measure import choose_device

        choose_device(device)  # before anything is begun that would look cut off
    corpus = context.artifacts["corpus"]
    law = find_law(context.workspace, corpus.name)
    settings: dict[str, Any] = {
        "minutes": context.minutes, "machine": machine_name(), "torch": version("torch"),
        **({"device": device} if device else {}), **({} if whole_chain else {"whole_chain": False}),
    }  # fmt: skip

    def build(target: Build) -> dict[str, Any]:
        from ownlm.recipe.planner import make_plan
        from ownlm.recipe.stages import instruct

        if whole_chain:
            instruct.check(context)
        plan = make_plan(context.minutes, corpus.metrics, context.screen, corpus.path, law, device, whole_chain)
        plan.write(target.folder)
        return {"forecast": dataclasses.asdict(plan.forecast), "parameters": plan.parameters, "steps": plan.steps}

    return context.workspace.make(
        "plan",
        context.recipe.name,
        build,
        inputs=context.inputs("corpus") | ({"law": law.id} if law else {}),
        settings=settings,
        code_version=CODE_VERSION,
    )


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What is going to be trained, and what it should come to."""
    plan = context.plan
    rate = plan.matmul_gflops[plan.kernels.precision]
    forecast = plan.forecast
    memory = f" and {plan.memory.total / 1e9:.2g} GB of memory" if plan.memory else ""
    where = "This machine" if plan.device == "cpu" else f"This machine's {plan.device} device"
    return (
        f"{where} multiplies at {rate:,.0f} GFLOP/s in {plan.kernels.precision}. {plan.minutes:g} minutes are "
        f"enough for a model of {plan.parameters / 1e6:.1f} million parameters to read {forecast.tokens / 1e6:.1f} "
        f"million tokens in {forecast.seconds:.0f} s{memory}; forecast: {forecast.heldout_bits_per_byte:.2f} bits per "
        f"byte on held-out text ({forecast.low:.2f} to {forecast.high:.2f})."
    )
