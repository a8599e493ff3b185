"""Stage 5: pre-training. The decoder learns to predict the next token of the corpus."""

from __future__ import annotations

import dataclasses
from typing import Any

from ownlm.recipe.context import RunContext
from ownlm.runtime import atomic
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

CODE_VERSION = 2
STARTERS = "starters.json"


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The base model; a run that was cut off goes on from its last checkpoint."""
    plan, seed = context.plan, context.recipe.seed
    artifact, reused = context.workspace.make(
        "model",
        f"{context.recipe.name}-base",
        lambda target: _build(context, target),
        inputs=context.inputs("tokens", "tokenizer", "plan"),
        settings={"stage": "base", "objective": "pretrain", "seed": seed, "steps": plan.steps},
        code_version=CODE_VERSION,
        resumable=True,
    )
    context.workspace.point(f"{context.recipe.name}-base", artifact)
    return artifact, reused


def _build(context: RunContext, target: Build) -> dict[str, Any]:
    from ownlm.data.shards import read_shards
    from ownlm.data.tokenizer import Tokenizer
    from ownlm.model.decoder import Decoder, initialise
    from ownlm.model.files import save_model
    from ownlm.model.kernels import use
    from ownlm.recipe.training import live_bar, measure_heldout, sample_hook, set_threads
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.pretrain import PretrainObjective
    from ownlm.train.schedule import Schedule

    plan = context.plan
    set_threads(plan)
    tokenizer = Tokenizer.load(context.path("tokenizer"))
    stream = read_shards(context.path("tokens"), "train", tokenizer.vocab_size)
    decoder = use(Decoder(plan.config(tokenizer.vocab_size)), plan.kernels)
    initialise(decoder, derive_seed(context.recipe.seed, "initialise"))
    objective = PretrainObjective(
        stream.ids,
        context.artifacts["tokens"].id,
        plan.context,
        plan.rows,
        seed=context.recipe.seed,
        bytes_per_token=context.artifacts["tokens"].metrics["bytes_per_token"],
    )
    settings = TrainSettings(Schedule(plan.steps), plan.rates, peak_flops=plan.peak_flops)
    with live_bar(context, "Pre-training", plan.steps) as show:
        hook = sample_hook(context, target.folder, tokenizer)
        result = train(decoder, objective, settings, target.folder, target.state, context.interruption, hook, show)
    save_model(target.folder, decoder, tokenizer)
    atomic.write_json(target.folder / STARTERS, context.main_kit.starters())
    heldout = measure_heldout(context, decoder, tokenizer)
    return {
        **dataclasses.asdict(result),
        **heldout,
        "parameters": decoder.config.parameters,
        "context": decoder.config.context,
        "train_bits_per_byte": round(objective.describe(result.loss)["bits_per_byte"], 4),
        "tokens_per_second": round(result.tokens / result.seconds),
        "forecast": dataclasses.asdict(plan.forecast),
    }


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What was learned, beside the forecast."""
    found = artifact.metrics
    used = f", {found['utilisation']:.0%} of the machine's matmul rate" if found["utilisation"] else ""
    return (
        f"Pre-trained on {found['tokens'] / 1e6:.1f} million tokens in {found['seconds']:.0f} s "
        f"({found['tokens_per_second']:,} tokens/s{used}): held-out text now costs "
        f"{found['heldout_bits_per_byte']:.3f} bits per byte (forecast "
        f"{found['forecast']['heldout_bits_per_byte']:.2f} in {found['forecast']['seconds']:.0f} s)."
    )
