"""What a compute budget buys on machines that are not here: `ownlm plan --flops` and `--gpu`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe import rules
from ownlm.recipe.laws import find_law
from ownlm.recipe.laws import forecaster as fitted_forecaster
from ownlm.recipe.machines import NODE, PRICES, Rent, find_gpu, rent
from ownlm.recipe.memory import Memory, fit_memory
from ownlm.recipe.scaling import PUBLISHED, PYTHON_SOURCES, Estimate, Forecaster, useful_bytes
from ownlm.recipe.shapes import LADDER, Size
from ownlm.recipe.texts import Text
from ownlm.runtime.errors import BudgetError, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.workspace import Workspace

LEAST_FLOPS = 1e11
MOST_FLOPS = 1e27


@dataclass(frozen=True)
class Outlook:
    """A size, what it reads and what it should come to. `memory` is one device's, None without a machine."""

    size: Size
    config: DecoderConfig
    flops: float
    tokens: float
    read: float
    batch_tokens: int
    estimate: Estimate
    law: str
    memory: Memory | None = None
    recompute: bool = False
    rows: int = 0

    @property
    def steps(self) -> int:
        """Updates."""
        return max(1, round(self.tokens / self.batch_tokens))


def look_ahead(
    flops_at: Callable[[int], float],
    told: Forecaster,
    text: Text,
    distinct: float = math.inf,
    rented: Rent | None = None,
) -> Outlook:
    """The size on the ladder with the lowest forecast, where `flops_at(width)` operations are done in all.

    `distinct` bytes of text are there. Of a rented machine, only sizes that fit its memory are looked at: without
    recomputation where that leaves room for a window, else with it, the states shared by all devices.

    Raises:
        BudgetError: nothing fits.
    """
    found = [each for size in LADDER if (each := _look(size, flops_at, told, text, distinct, rented)) is not None]
    if not found:
        assert rented is not None
        raise BudgetError(f"Not even the smallest model fits the memory of {rented.count} x {rented.gpu.name}.")
    return min(found, key=lambda each: each.estimate.bits_per_byte)


def _look(
    size: Size, flops_at: Callable[[int], float], told: Forecaster, text: Text, distinct: float, rented: Rent | None
) -> Outlook | None:
    window = rules.context(size.config(8192, 512).parameters).value
    config = size.config(rules.vocabulary(size, window, text).value, window)
    flops = flops_at(size.width)
    tokens = flops / config.training_flops_per_token(window)
    read = tokens * text.bytes_of(config.vocabulary)
    batch = rules.batch(flops, window).value
    estimate = told.estimate(config.matmul_parameters, read, min(distinct, max(read, 1.0)))
    found = Outlook(size, config, flops, tokens, read, batch, estimate, told.law.source)
    if rented is None:
        return found
    each = max(1, batch // window // rented.count)
    rows, kernels = 1 << min(6, int(math.log2(each))), Kernels("bfloat16", "sdpa", True)
    fitting = fit_memory(config, kernels, rows, rented.gpu.memory, rented.count)
    if fitting is None:
        return None
    chosen, rows, memory = fitting
    return dataclasses.replace(found, memory=memory, recompute=chosen.recompute, rows=rows)


def outlook_command(
    workspace: Workspace,
    screen: Screen,
    *,
    flops: float | None = None,
    gpu: str | None = None,
    hours: float | None = None,
    dollars: float | None = None,
    count: int | None = None,
    corpus: str | None = None,
) -> dict[str, Any]:
    """`ownlm plan --flops X` and `ownlm plan --gpu NAME`: no machine is measured, and nothing is kept.

    Raises:
        BudgetError: too little or too much for a forecast.
        OwnLMError: a GPU that is not known, a budget that is missing.
    """
    rented = None if gpu is None else rent(find_gpu(gpu), hours, dollars, count)
    if flops is not None and not LEAST_FLOPS <= flops <= MOST_FLOPS:
        raise BudgetError(f"--flops {flops:g}: forecasts reach from {LEAST_FLOPS:g} to {MOST_FLOPS:g} operations.")
    if rented is None and flops is None:
        raise OwnLMError("A forecast without a machine needs a budget: --flops 1e18, or --gpu h100 --hours 2.")

    def flops_at(width: int) -> float:
        return rented.flops(width) if rented else float(flops or 0)

    distinct, told = _law(workspace, corpus, flops_at)
    found = look_ahead(flops_at, told, Text(), distinct, rented)
    rows = _rows(found, rented, distinct)
    screen.say(sentence(found, rented))
    screen.table(("choice", "value", "why"), rows)
    if found.estimate.outside > 1.05:
        screen.warn(
            f"This lies {found.estimate.outside:.1f} times beyond what {found.law} was fitted to; the interval is "
            "wider for it."
        )
    screen.next(
        "ownlm plan --fit", "fits the law to your own runs, and `--gpu NAME --hours H` asks for a rented machine"
    )
    result = {
        "flops": found.flops, "layers": found.size.layers, "width": found.size.width,
        "parameters": found.config.parameters, "matmul_parameters": found.config.matmul_parameters,
        "vocabulary": found.config.vocabulary, "context": found.config.context, "batch_tokens": found.batch_tokens,
        "steps": found.steps, "tokens": round(found.tokens), "bytes": round(found.read),
        "forecast": dataclasses.asdict(found.estimate), "law": found.law,
        "memory": found.memory and {**dataclasses.asdict(found.memory), "total": found.memory.total},
        "recompute": found.recompute, "rows": found.rows,
        "machine": rented and {
            "gpu": rented.gpu.name, "count": rented.count, "hours": rented.hours, "dollars": round(rented.dollars, 2),
            "utilisation": round(rented.utilisation(found.size.width), 4), "source": rented.gpu.source,
        },
        "reasons": rows,
    }  # fmt: skip
    screen.result(result)
    return result


def _law(workspace: Workspace, corpus: str | None, flops_at: Callable[[int], float]) -> tuple[float, Forecaster]:
    """The distinct bytes (infinite without a corpus) and the law: a fitted one, the small one in its range, or the
    published one.
    """
    distinct, name = math.inf, None
    if corpus is not None:
        artifact = workspace.resolve(corpus, ("corpus",))
        distinct, name = float(artifact.metrics["bytes"] - artifact.metrics["heldout_bytes"]), artifact.name
    law = find_law(workspace, name)
    if law is not None:
        return distinct, fitted_forecaster(law)
    small = Forecaster(PYTHON_SOURCES, PUBLISHED)
    near = look_ahead(flops_at, small, Text(), distinct)
    if corpus is not None or small.believes(near.config.matmul_parameters, near.read, min(distinct, near.read)):
        return distinct, small
    return distinct, Forecaster(PUBLISHED)


def sentence(found: Outlook, rented: Rent | None) -> str:
    """The answer."""
    estimate = found.estimate
    machine = ""
    if rented is not None:
        plural = "s" if rented.count > 1 else ""
        machine = (
            f"{rented.count} {rented.gpu.name}{plural} for {rented.hours:.3g} hours (${rented.dollars:,.0f} at "
            f"${rented.gpu.dollars:.2f} an hour each) do about "
        )
    return (
        f"{machine}{found.flops:.2g} operations{' ' if machine else ' are '}enough for a model of "
        f"{people(found.config.parameters)} parameters to read {people(found.tokens)} tokens ({people(found.read)} "
        f"bytes); forecast: {estimate.bits_per_byte:.2f} bits per byte on held-out text ({estimate.low:.2f} to "
        f"{estimate.high:.2f})."
    ).replace(" operations enough", " operations, enough")


def people(number: float) -> str:
    """ "1.2 million", "34 billion"."""
    for name, size in (("trillion", 1e12), ("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def _rows(found: Outlook, rented: Rent | None, distinct: float) -> list[tuple[str, str, str]]:
    size, config = found.size, found.config
    shape = (
        f"{size.layers} layers of {size.width}, {size.heads} heads of {size.head_dim}: lowest forecast for this compute"
    )
    useful = useful_bytes(found.read, min(distinct, found.read))
    text = "all different: have so much ready, or name a --corpus to see what repeating it costs"
    if math.isfinite(distinct):
        text = f"of {people(distinct)}, {found.read / distinct:.1f} times: counts as {people(useful)}"
        text += " (Muennighoff et al. 2023)"
    rates, batch = rules.rates(size.width, found.batch_tokens), rules.batch(found.flops, config.context)
    rows = [
        ("size", people(config.parameters), shape),
        rules.row("vocabulary", rules.vocabulary(size, config.context, Text())),
        rules.row("context", rules.context(size.config(8192, 512).parameters)),
        ("text", f"{people(found.read)} bytes", text),
        rules.row("batch", batch),
        ("steps", f"{found.steps:,}", "so many batches do the operations"),
        rules.row("learning rate", rates),
        rules.row("warm-up", rules.warmup(found.steps)),
        rules.row("decay", rules.decay()),
        (
            "bits per byte",
            f"{found.estimate.bits_per_byte:.2f} ({found.estimate.low:.2f} to {found.estimate.high:.2f})",
            f"by {found.law}" + (", on text like MassiveText" if found.law == PUBLISHED.source else ""),
        ),
    ]
    return rows if rented is None or found.memory is None else [*rows, *_machine_rows(found, found.memory, rented)]


def _machine_rows(found: Outlook, memory: Memory, rented: Rent) -> list[tuple[str, str, str]]:
    gpu = rented.gpu
    again = ", activations worked out again in the backward pass" if found.recompute else ""
    shared = f", states shared by {rented.count} (FSDP)" if rented.count > 1 else ""
    used = rented.utilisation(found.size.width)
    return [
        (
            "machine",
            f"{rented.count} x {gpu.name}",
            f"{gpu.flops / 1e12:,.0f} TFLOP/s dense bf16, {gpu.memory / 1e9:.0f} GB, {gpu.bandwidth / 1e12:.2g} TB/s "
            f"({gpu.source})",
        ),
        (
            "utilisation", f"{used:.0%}",
            f"assumed, of the datasheet's rate: {'one node' if rented.count <= NODE else 'many nodes'}, width "
            f"{found.size.width:,}; torchtitan reports 33 to 39 % on H100 (arXiv 2410.06511)",
        ),
        ("price", f"${rented.dollars:,.2f}", f"${gpu.dollars:.2f} an hour each: {PRICES}"),
        (
            "memory", f"{memory.total / 1e9:.3g} GB",
            f"on each of {gpu.memory / 1e9:.0f}: weights {memory.weights / 1e9:.3g}, gradients "
            f"{memory.gradients / 1e9:.3g}, optimiser {memory.optimiser / 1e9:.3g}, activations "
            f"{memory.activations / 1e9:.3g} of {found.rows} windows at a time{shared}{again}",
        ),
    ]  # fmt: skip
