"""The planner: from a budget in minutes and this machine's measured speed to sizes, steps and a forecast."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe.context import RunContext
from ownlm.recipe.measure import Machine, measure_machine, step_seconds
from ownlm.recipe.plan import Forecast, Plan, Seconds
from ownlm.recipe.scaling import PYTHON_SOURCES
from ownlm.recipe.schema import Recipe, check_budget
from ownlm.recipe.stages import plan as plan_stage
from ownlm.runtime.device import machine_name
from ownlm.runtime.errors import ArtifactNotFound, BudgetError
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import Interruption
from ownlm.runtime.threads import thread_budget
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace
from ownlm.train.optimisers import Rates

COMPILE_SECONDS = 20.0
"""What compiling the block costs at first; it gains a third of the training time."""
SLACK = 1.08
"""What a step of a long run takes, as a share of the measured one: checkpoints, samples, and a warmer machine."""
FEWEST_STEPS = 20
BYTES_PER_TOKEN = {1024: 2.75, 2048: 3.1, 4096: 3.5, 8192: 3.9}
"""Of Python and prose, by vocabulary."""


@dataclass(frozen=True)
class Size:
    """A shape on the planner's ladder."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int

    def config(self, context: int) -> DecoderConfig:
        """The decoder of this shape."""
        return DecoderConfig(
            self.vocabulary, self.layers, self.width, self.heads, self.kv_heads, self.head_dim, self.ffn, context
        )


LADDER = (
    Size(4, 128, 2, 1, 64, 384, 2048),
    Size(4, 192, 3, 1, 64, 512, 4096),
    Size(6, 192, 3, 1, 64, 512, 4096),
    Size(6, 256, 2, 1, 128, 768, 4096),
    Size(6, 384, 3, 1, 128, 1024, 4096),
    Size(8, 512, 4, 2, 128, 1408, 8192),
    Size(12, 768, 6, 2, 128, 2048, 8192),
    Size(16, 1024, 8, 4, 128, 2816, 8192),
)


def shares(minutes: float) -> Seconds:
    """How the budget is spent; pre-training gets what the fixed costs and the later stages leave."""
    total = 60 * minutes
    overhead = 22 + 0.03 * total
    rest = total - overhead
    return Seconds(
        pretrain=0.62 * rest, sft=0.12 * rest, preferences=0.08 * rest, dpo=0.06 * rest, evaluate=0.12 * rest,
        overhead=overhead,
    )  # fmt: skip


def efficiency(width: int, compiled: bool) -> float:
    """The share of the matmul rate that training reaches, by width: narrow matrices feed the units badly."""
    share = min(0.8, max(0.15, 0.28 + 0.0029 * (width - 128)))
    return share if compiled else 0.6 * share


def choose_size(flops_per_second: float, seconds: float, context: int, distinct: float, compiled: bool) -> Size:
    """The size on the ladder with the lowest forecast loss in this time at this matmul rate."""

    def forecast(size: Size) -> float:
        config = size.config(context)
        reached = flops_per_second * efficiency(size.width, compiled)
        tokens = reached * seconds / config.training_flops_per_token(context)
        read = tokens * BYTES_PER_TOKEN[size.vocabulary]
        return PYTHON_SOURCES.bits_per_byte(config.matmul_parameters, read, distinct)

    return min(LADDER, key=forecast)


def make_plan(minutes: float, corpus: dict[str, Any], screen: Screen | None = None) -> Plan:
    """Measures this machine, chooses, and forecasts. `corpus` are the metrics of the corpus artifact.

    Raises:
        BudgetError: less time than the smallest chain needs, or a machine too slow for it.
    """
    import torch

    check_budget(minutes)
    threads = thread_budget()
    torch.set_num_threads(threads)
    machine = measure_machine()
    seconds = shares(minutes)
    compiled = machine.compiler is not None and seconds.pretrain > 4 * COMPILE_SECONDS
    kernels = Kernels(machine.precision, "tiled", compiled)
    context, rows = 512, 8
    train_seconds = seconds.pretrain - (COMPILE_SECONDS if compiled else 0)
    distinct = float(corpus["bytes"] - corpus["heldout_bytes"])
    rate = machine.matmul_gflops[machine.precision] * 1e9
    best = LADDER.index(choose_size(rate, train_seconds, context, distinct, compiled))
    for size in reversed(LADDER[: best + 1]):
        config = size.config(context)
        step = step_seconds(config, kernels, rows)
        steps = int(train_seconds / (step * SLACK))
        if steps >= FEWEST_STEPS:
            break
    else:
        raise BudgetError(
            f"{minutes:g} minutes are too few on this machine: a training step of the smallest model takes "
            f"{step:.1f} s. Give more minutes."
        )
    tokens = steps * rows * context
    read = tokens * BYTES_PER_TOKEN[size.vocabulary]
    forecast = PYTHON_SOURCES.bits_per_byte(config.matmul_parameters, read, distinct)
    spread = PYTHON_SOURCES.spread
    token_rate = rows * context / step
    plan = Plan(
        minutes=minutes, device="cpu", machine=machine_name(), threads=threads, kernels=kernels,
        matmul_gflops=machine.matmul_gflops, vocabulary=size.vocabulary, layers=size.layers, width=size.width,
        heads=size.heads, kv_heads=size.kv_heads, head_dim=size.head_dim, ffn=size.ffn, context=context, rows=rows,
        steps=steps, parameters=config.parameters, rates=Rates(), seconds=seconds,
        sft_steps=max(10, int(0.8 * seconds.sft / step)),
        align_prompts=_clamp(24, token_rate * seconds.preferences / 2000, 600),
        dpo_rows=8, dpo_length=320,
        dpo_steps=_clamp(8, 0.85 * seconds.dpo * token_rate / (2 * 8 * 320), 400),
        heldout_prompts=_clamp(40, 0.25 * token_rate * seconds.evaluate / 250, 160),
        heldout_bytes=_clamp(150_000, 0.15 * seconds.evaluate * token_rate * 3 * 3.5, 4_000_000),
        excerpts=_clamp(10, 0.6 * seconds.evaluate, 60),
        forecast=Forecast(
            round(steps * step, 1), tokens, round(forecast, 3), round(forecast * (1 - spread), 3),
            round(forecast * (1 + spread), 3),
        ),
        packed_rows=machine.packed_rows,
    )  # fmt: skip
    return _with_reasons(plan, machine, step)


def _clamp(low: float, value: float, high: float) -> int:
    return int(min(max(low, value), high))


def _with_reasons(plan: Plan, machine: Machine, step: float) -> Plan:
    fp32, bf16 = machine.matmul_gflops["float32"], machine.matmul_gflops["bfloat16"]
    compilation = (
        f"with {machine.compiler}: fused blocks train about a third faster"
        if plan.kernels.compiled
        else "none: it would cost more than it gains in this budget"
        if machine.compiler
        else "none: no C++ compiler was found"
    )
    shape = f"{plan.layers} layers of {plan.width}, {plan.heads} heads of {plan.head_dim}"
    reasons = (
        ("precision", plan.kernels.precision, f"measured {bf16:,.0f} GFLOP/s in bfloat16, {fp32:,.0f} in float32"),
        ("compilation", "on" if plan.kernels.compiled else "off", compilation),
        ("attention", plan.kernels.attention, "blocks of batched matmuls stay in the cache"),
        ("size", f"{plan.parameters / 1e6:.1f}M", f"{shape}: lowest forecast loss for this compute"),
        ("vocabulary", f"{plan.vocabulary:,}", "a larger head would eat more compute than shorter text saves"),
        ("batch", f"{plan.batch_tokens:,} tokens", "many small steps learn more than few large ones at this size"),
        ("steps", f"{plan.steps:,}", f"{step * 1000:.0f} ms each, measured, in {plan.forecast.seconds:.0f} s"),
        ("learning rate", f"{plan.rates.matrices:g}", "Muon's, for matrices; AdamW for the rest"),
    )
    return dataclasses.replace(plan, reasons=reasons)


def plan_command(workspace: Workspace, screen: Screen, minutes: float, corpus: str | None) -> Artifact:
    """`ownlm plan`: measures, chooses and explains, for a corpus that exists; the plan is kept as an artifact.

    Raises:
        ArtifactNotFound: no corpus has been built yet.
    """
    found = workspace.resolve(corpus, ("corpus",)) if corpus else _newest_corpus(workspace)
    recipe = Recipe(found.name, ())
    context = RunContext(recipe, workspace, screen, Interruption(), minutes, artifacts={"corpus": found})
    artifact, reused = plan_stage.make(context)
    context.artifacts["plan"] = artifact
    screen.say(plan_stage.sentence(context, artifact) + (" (Planned before.)" if reused else ""))
    screen.table(("choice", "value", "why"), context.plan.reasons)
    screen.next(f"ownlm demo --minutes {minutes:g}", "or `ownlm run RECIPE.yaml` with the same minutes")
    screen.result({"id": artifact.id, **dataclasses.asdict(context.plan)})
    return artifact


def _newest_corpus(workspace: Workspace) -> Artifact:
    present = workspace.artifacts("corpus")
    if not present:
        raise ArtifactNotFound("There is no corpus to plan for yet. `ownlm demo` builds a first one.")
    return present[-1]
