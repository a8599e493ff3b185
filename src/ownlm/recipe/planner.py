"""The planner: from a budget in minutes and this machine's measured speed to sizes, steps and a forecast."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe import rules
from ownlm.recipe.context import RunContext
from ownlm.recipe.laws import forecaster as fitted_forecaster
from ownlm.recipe.measure import Machine, choose_device, measure_machine, step_seconds
from ownlm.recipe.memory import Memory, fit_memory, training_memory
from ownlm.recipe.plan import Forecast, Plan, Seconds
from ownlm.recipe.scaling import REACH, Estimate, Forecaster, built_in, useful_bytes
from ownlm.recipe.schema import Recipe, check_budget
from ownlm.recipe.shapes import LADDER, Size
from ownlm.recipe.stages import plan as plan_stage
from ownlm.recipe.texts import Text, measure_text
from ownlm.runtime.device import machine_name
from ownlm.runtime.errors import ArtifactNotFound, BudgetError
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import Interruption
from ownlm.runtime.threads import thread_budget
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace

COMPILE_SECONDS = 20.0
"""What compiling the block costs at first; it gains a third of the training time."""
CACHED_SECONDS = 3.0
"""What it costs again, out of the compiler's cache."""
SLACK = 1.08
"""What a step of a long run may take, as a share of the measured one: checkpoints, samples, a warmer machine."""
PACE = 1.03
"""What it takes on average."""
FEWEST_STEPS = 20
MOST_ROWS = {"cpu": 8, "cuda": 64, "mps": 16}
"""Windows a micro-batch: more leave a processor's cache, and fewer leave a GPU idle."""
PATIENT = 900.0
"""From so many seconds of training on, other sizes are measured too where the first one was not as fast as expected."""


@dataclass(frozen=True)
class Basis:
    """What a choice is made from: the machine, what the text is like, its distinct bytes, and the law."""

    machine: Machine
    text: Text
    distinct: float
    forecaster: Forecaster
    compiled: bool

    @property
    def rate(self) -> float:
        """The measured matmul rate, FLOP/s."""
        return self.machine.matmul_gflops[self.machine.precision] * 1e9

    @property
    def available(self) -> float:
        """Bytes of memory."""
        return float("inf") if self.machine.memory is None else self.machine.memory


@dataclass(frozen=True)
class Shape:
    """One candidate: a size with the vocabulary, context, batch and kernels that the rules give it."""

    size: Size
    config: DecoderConfig
    kernels: Kernels
    rows: int
    micro_batches: int
    memory: Memory

    @property
    def batch_tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.micro_batches * self.config.context


def shares(minutes: float, whole_chain: bool = True) -> Seconds:
    """How the budget is spent; pre-training gets what the fixed costs and the later stages leave."""
    total = 60 * minutes
    overhead = 22 + 0.03 * total
    rest = total - overhead
    if not whole_chain:
        return Seconds(0.94 * rest, 0.0, 0.0, 0.0, 0.06 * rest, overhead)
    return Seconds(
        pretrain=0.62 * rest, sft=0.12 * rest, preferences=0.08 * rest, dpo=0.06 * rest, evaluate=0.12 * rest,
        overhead=overhead,
    )  # fmt: skip


def efficiency(width: int, compiled: bool, device: str = "cpu") -> float:
    """The share of the matmul rate that training reaches, by width: narrow matrices feed the units badly."""
    if device != "cpu":
        return min(0.5, 0.5 * width / 1024) * (1.0 if compiled else 0.6)
    share = min(0.8, max(0.15, 0.28 + 0.0029 * (width - 128)))
    return share if compiled else 0.6 * share


def shape_of(size: Size, seconds: float, basis: Basis) -> Shape | None:
    """The candidate of this size; None where it fits the memory in no way."""
    machine = basis.machine
    window = rules.context(size.config(8192, 512).parameters).value
    vocabulary = rules.vocabulary(size, window, basis.text).value
    config = size.config(vocabulary, window)
    flops = basis.rate * efficiency(size.width, basis.compiled, machine.device) * seconds
    windows = max(1, rules.batch(flops, window).value // window)
    kernels = Kernels(machine.precision, "tiled" if machine.device == "cpu" else "sdpa", basis.compiled)
    found = fit_memory(config, kernels, min(windows, MOST_ROWS[machine.device]), basis.available)
    return None if found is None else Shape(size, config, found[0], found[1], windows // found[1], found[2])


def choose(seconds: float, basis: Basis, scale: float = 1.0) -> list[Shape]:
    """The shapes that fit the memory, the one with the lowest forecast in this time first.

    `scale` is how much faster than expected the machine was found to train.
    """

    def loss(shape: Shape) -> float:
        reached = basis.rate * scale * efficiency(shape.size.width, basis.compiled, basis.machine.device)
        tokens = reached * seconds / shape.config.training_flops_per_token(shape.config.context)
        read = tokens * basis.text.bytes_of(shape.config.vocabulary)
        return basis.forecaster.bits_per_byte(shape.config.matmul_parameters, read, basis.distinct)

    shapes = [shape for size in LADDER if (shape := shape_of(size, seconds, basis))]
    if not shapes:
        smallest = training_memory(LADDER[0].config(1024, 512), Kernels(recompute=True), 1)
        raise BudgetError(
            f"{basis.available / 1e6:.0f} MB of free memory are too few: training the smallest model takes "
            f"{smallest.total / 1e6:.0f}. Close other programs, or use a larger machine."
        )
    return sorted(shapes, key=loss)


def make_plan(
    minutes: float,
    corpus: dict[str, Any],
    screen: Screen | None = None,
    folder: Path | None = None,
    law: Artifact | None = None,
    device: str | None = None,
    whole_chain: bool = True,
) -> Plan:
    """Measures this machine, chooses, and forecasts.

    `corpus` are the metrics of the corpus artifact, `folder` is where it lies (None: its text is taken for average),
    `law` a fitted one.

    Raises:
        BudgetError: less time than the smallest chain needs, or a machine too slow or too small for it.
        OwnLMError: a device that is not here.
    """
    import torch

    check_budget(minutes)
    threads = thread_budget()
    torch.set_num_threads(threads)
    machine = measure_machine(choose_device(device))
    text = Text() if folder is None else measure_text(folder)
    seconds = shares(minutes, whole_chain)
    compiled = machine.compiler is not None and seconds.pretrain > 4 * COMPILE_SECONDS
    told = built_in(text.prose) if law is None else fitted_forecaster(law)
    if law is None:
        told = dataclasses.replace(told, law=told.law.scaled(text.factor))
    basis = Basis(machine, text, float(corpus["bytes"] - corpus["heldout_bytes"]), told, compiled)
    train_seconds = seconds.pretrain - (COMPILE_SECONDS if compiled else 0)
    shape, step = _measured(minutes, train_seconds, basis)
    steps = int(train_seconds / (step * SLACK))
    tokens = steps * shape.batch_tokens
    read = tokens * text.bytes_of(shape.config.vocabulary)
    estimate = told.estimate(shape.config.matmul_parameters, read, basis.distinct)
    config, size = shape.config, shape.size
    token_rate = shape.batch_tokens / step
    plan = Plan(
        minutes=minutes, device=machine.device, machine=machine_name(), threads=threads, kernels=shape.kernels,
        matmul_gflops=machine.matmul_gflops, vocabulary=config.vocabulary, layers=size.layers, width=size.width,
        heads=size.heads, kv_heads=size.kv_heads, head_dim=size.head_dim, ffn=size.ffn, context=config.context,
        rows=shape.rows, steps=steps, parameters=config.parameters,
        rates=rules.rates(size.width, shape.batch_tokens).value, seconds=seconds,
        sft_steps=max(10, int(0.8 * seconds.sft * shape.micro_batches / step)),
        align_prompts=_clamp(24, token_rate * seconds.preferences / 2000, 600),
        dpo_rows=8, dpo_length=320,
        dpo_steps=_clamp(8, 0.85 * seconds.dpo * token_rate / (2 * 8 * 320), 400),
        heldout_prompts=_clamp(40, 0.25 * token_rate * seconds.evaluate / 250, 160),
        heldout_bytes=_clamp(150_000, 0.15 * seconds.evaluate * token_rate * 3 * 3.5, 4_000_000),
        excerpts=_clamp(10, 0.6 * seconds.evaluate, 60),
        forecast=Forecast(
            round(steps * step * PACE + (CACHED_SECONDS if compiled else 0), 1), tokens,
            round(estimate.bits_per_byte, 3), round(estimate.low, 3), round(estimate.high, 3),
        ),
        packed_rows=machine.packed_rows, micro_batches=shape.micro_batches, warmup=rules.warmup(steps).value,
        decay=rules.decay().value, memory=shape.memory, law=_law_text(basis, law, estimate),
    )  # fmt: skip
    return dataclasses.replace(plan, reasons=_reasons(plan, shape, basis, step, read))


def _measured(minutes: float, seconds: float, basis: Basis) -> tuple[Shape, float]:
    """The best shape and the measured seconds of its step; a smaller one where that leaves too few steps.

    In a long run other sizes are measured as well, while the speed found makes another one look better.
    """

    def loss(shape: Shape, step: float) -> float:
        read = seconds / step * shape.batch_tokens * basis.text.bytes_of(shape.config.vocabulary)
        return basis.forecaster.bits_per_byte(shape.config.matmul_parameters, read, basis.distinct)

    ranked = choose(seconds, basis)
    shape, step = ranked[0], _step(ranked[0], basis)
    tried = {shape.size: (shape, step)}
    while seconds > PATIENT and len(tried) < 3:
        flops = shape.batch_tokens * shape.config.training_flops_per_token(shape.config.context) / step
        expected = basis.rate * efficiency(shape.size.width, basis.compiled, basis.machine.device)
        shape = choose(seconds, basis, flops / expected)[0]
        if shape.size in tried:
            break
        step = _step(shape, basis)
        tried[shape.size] = (shape, step)
    shape, step = min(tried.values(), key=lambda each: loss(*each))
    while int(seconds / (step * SLACK)) < FEWEST_STEPS:
        smaller = [each for each in ranked if LADDER.index(each.size) < LADDER.index(shape.size)]
        if not smaller:
            raise BudgetError(
                f"{minutes:g} minutes are too few on this machine: a training step of the smallest model takes "
                f"{step:.1f} s. Give more minutes."
            )
        shape = max(smaller, key=lambda each: LADDER.index(each.size))
        step = _step(shape, basis)
    return shape, step


def _step(shape: Shape, basis: Basis) -> float:
    return step_seconds(shape.config, shape.kernels, shape.rows, shape.micro_batches, device=basis.machine.device)


def _clamp(low: float, value: float, high: float) -> int:
    return int(min(max(low, value), high))


def _law_text(basis: Basis, law: Artifact | None, estimate: Estimate) -> str:
    """What forecast the loss, and how far that is from what it knows."""
    source = basis.forecaster.law.source
    if law is not None:
        source += f" ({law.label})"
    elif basis.text.level is not None:
        source += f", x {basis.text.factor:.2f} for this text (by an n-gram model and xz)"
    if estimate.outside <= 1.05:
        return source
    told = f"{source}; {estimate.outside:.1f} times beyond what it has seen"
    beyond = basis.forecaster.beyond
    return (
        told if beyond is None or estimate.outside <= REACH else f"{told}, from {REACH:g} times on by {beyond.source}"
    )


def _reasons(plan: Plan, shape: Shape, basis: Basis, step: float, read: float) -> tuple[tuple[str, str, str], ...]:
    machine, forecast = basis.machine, plan.forecast
    fp32, bf16 = machine.matmul_gflops["float32"], machine.matmul_gflops["bfloat16"]
    compilation = (
        f"with {machine.compiler}: fused blocks train about a third faster"
        if plan.kernels.compiled
        else "none: it would cost more than it gains in this budget"
        if machine.compiler
        else "none: no C++ compiler was found"
    )
    attention = "blocks of batched matmuls stay in the cache" if machine.device == "cpu" else "torch's fused kernel"
    structure = f"{plan.layers} layers of {plan.width}, {plan.heads} heads of {plan.head_dim}"
    epochs, useful = read / basis.distinct, useful_bytes(read, basis.distinct)
    repeats = (
        f"of {basis.distinct / 1e6:.1f} MB: every byte is new"
        if epochs <= 1
        else f"of {basis.distinct / 1e6:.1f} MB, {epochs:.1f} times; repeats are worth less, so it counts as "
        f"{useful / 1e6:.1f} MB (Muennighoff et al. 2023)"
    )
    found: list[tuple[str, str, str]] = [
        ("device", plan.device, "asked for, or the fastest step of those that are here"),
        ("precision", plan.kernels.precision, f"measured {bf16:,.0f} GFLOP/s in bfloat16, {fp32:,.0f} in float32"),
        ("compilation", "on" if plan.kernels.compiled else "off", compilation),
        ("attention", plan.kernels.attention, attention),
        ("size", f"{plan.parameters / 1e6:.1f}M", f"{structure}: lowest forecast loss for this compute"),
        rules.row("vocabulary", rules.vocabulary(shape.size, plan.context, basis.text)),
        rules.row("context", rules.context(shape.size.config(8192, 512).parameters)),
        ("text", f"{read / 1e6:.1f} MB", repeats),
        rules.row("batch", _batch(plan)),
        ("steps", f"{plan.steps:,}", f"{step * 1000:.0f} ms each, measured, in {forecast.seconds:.0f} s"),
        rules.row("learning rate", rules.rates(plan.width, plan.batch_tokens)),
        rules.row("warm-up", rules.warmup(plan.steps)),
        rules.row("decay", rules.decay(plan.decay)),
    ]
    if memory := plan.memory:
        parts = ", ".join(f"{name} {getattr(memory, name) / 1e9:.2g}" for name in ("weights", "gradients", "optimiser"))
        free = "" if machine.memory is None else f"; {machine.memory / 1e9:.0f} GB are free"
        again = "; activations are worked out again to fit" if plan.kernels.recompute else ""
        why = f"{parts}, activations {memory.activations / 1e9:.2g}{free}{again}"
        found.append(("memory", f"{memory.total / 1e9:.2g} GB", why))
    interval = f"{forecast.heldout_bits_per_byte:.2f} ({forecast.low:.2f} to {forecast.high:.2f})"
    found.append(("bits per byte", interval, plan.law))
    return tuple(found)


def _batch(plan: Plan) -> rules.Choice[int]:
    """The rule's reason for the batch that was taken."""
    flops = plan.forecast.tokens * plan.config(plan.vocabulary).training_flops_per_token(plan.context)
    said = rules.batch(flops, plan.context)
    parts = f" in {plan.micro_batches} parts" if plan.micro_batches > 1 else ""
    return rules.Choice(plan.batch_tokens, f"{plan.batch_tokens:,} tokens{parts}", said.why)


def plan_command(
    workspace: Workspace, screen: Screen, minutes: float, corpus: str | None, *, device: str | None = None
) -> Artifact:
    """`ownlm plan`: measures, chooses and explains, for a corpus that exists; the plan is kept as an artifact.

    Raises:
        ArtifactNotFound: no corpus has been built yet.
        OwnLMError: a device that is not here.
    """
    found = workspace.resolve(corpus, ("corpus",)) if corpus else _newest_corpus(workspace)
    recipe = Recipe(found.name, ())
    context = RunContext(recipe, workspace, screen, Interruption(), minutes, artifacts={"corpus": found})
    artifact, reused = plan_stage.make(context, device)
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
