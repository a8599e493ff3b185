"""Stage 5: pre-training. The decoder learns to predict the next token of the corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ownlm.recipe.context import RunContext
from ownlm.runtime import atomic
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

if TYPE_CHECKING:
    from ownlm.recipe.base_training import RunOptions

CODE_VERSION = 4
STARTERS = "starters.json"


def make(
    context: RunContext,
    *,
    name: str | None = None,
    steps: int | None = None,
    options: RunOptions | None = None,
    begin: Callable[[Build], None] | None = None,
) -> tuple[Artifact, bool]:
    """The base model; a run that was cut off goes on from its last checkpoint.

    `name` and `steps` take the place of the recipe's and the plan's. With the artifacts "teacher" and "draws" it learns
    from a teacher as well. `begin` is called when the training begins, and not where the model is there already.
    """
    plan, name = context.plan, name or f"{context.recipe.name}-base"
    taught = context.inputs("teacher", "draws") if "teacher" in context.artifacts else {}

    def build(target: Build) -> dict[str, Any]:
        if begin is not None:
            begin(target)
        return train_from_scratch(context, target, steps, options)

    artifact, reused = context.workspace.make(
        "model",
        name,
        build,
        inputs={**context.inputs("tokens", "tokenizer", "plan"), **taught},
        settings={
            "stage": "base", "objective": "distil" if taught else "pretrain", "seed": context.recipe.seed,
            "steps": plan.steps if steps is None else steps,
            **context.recipe.pretrain.settings,
        },
        code_version=CODE_VERSION,
        resumable=True,
    )  # fmt: skip
    context.workspace.point(name, artifact)
    return artifact, reused


def train_from_scratch(
    context: RunContext, target: Build, steps: int | None, options: RunOptions | None
) -> dict[str, Any]:
    """Trains and measures; every process of a run calls this, and the main one writes the model and gets metrics."""
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.model.decoder import Decoder, initialise
    from ownlm.model.files import save_model
    from ownlm.model.kernels import use
    from ownlm.recipe.base_training import RunOptions, prepare_threads, train_base
    from ownlm.recipe.course import Course
    from ownlm.recipe.objectives import base_objective
    from ownlm.recipe.training import measure_heldout

    options = options or RunOptions()
    plan, course = context.plan, Course.of(context.plan, steps, context.recipe.pretrain)
    world = options.on(course)
    prepare_threads(course, world)
    tokenizer = load_tokenizer(context.path("tokenizer"))
    decoder = use(Decoder(plan.config(tokenizer.vocab_size)), course.kernels)
    initialise(decoder, derive_seed(context.recipe.seed, "initialise"))
    objective = base_objective(context, course, tokenizer.vocab_size, world)
    told = {"plan": dataclasses.asdict(course), "seed": context.recipe.seed, "inputs": context.inputs("tokens", "plan")}
    whole, result = train_base(context, target, decoder, objective, course, tokenizer, options, told)
    if whole is None:
        return {}
    save_model(target.folder, whole, tokenizer)
    atomic.write_json(target.folder / STARTERS, context.main_kit.starters())
    return {
        **dataclasses.asdict(result),
        **measure_heldout(context, whole, tokenizer),
        **taught_by(context, course.heldout_bytes),
        "parameters": whole.config.parameters,
        "context": whole.config.context,
        "train_bits_per_byte": round(objective.describe(result.loss)["bits_per_byte"], 4),
        "tokens_per_second": round(result.tokens / result.seconds),
        "forecast": dataclasses.asdict(plan.forecast),
    }


def taught_by(context: RunContext, heldout_bytes: int) -> dict[str, Any]:
    """The teacher's name and its held-out bits per byte on the same documents; nothing where there is none."""
    if "teacher" not in context.artifacts:
        return {}
    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.engine.open import open_decoder
    from ownlm.recipe.training import heldout_sample, measure

    teacher = context.artifacts["teacher"]
    documents = heldout_sample(context, heldout_bytes)
    found = measure(open_decoder(teacher.path), load_tokenizer(teacher.path), documents)
    return {"teacher": teacher.name, "teacher_bits_per_byte": found["heldout_bits_per_byte"]}


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What was learned, beside the forecast and the teacher."""
    found = artifact.metrics
    used = f", {found['utilisation']:.0%} of the machine's matmul rate" if found["utilisation"] else ""
    teacher = found.get("teacher")
    beside = f" Its teacher {teacher} pays {found['teacher_bits_per_byte']:.3f}." if teacher else ""
    left_out = f" {found['skipped']:,} steps were left out: skipped.jsonl says why." if found["skipped"] else ""
    return (
        f"Pre-trained on {found['tokens'] / 1e6:.1f} million tokens in {found['seconds']:.0f} s "
        f"({found['tokens_per_second']:,} tokens/s{used}): held-out text now costs "
        f"{found['heldout_bits_per_byte']:.3f} bits per byte (forecast "
        f"{found['forecast']['heldout_bits_per_byte']:.2f} in {found['forecast']['seconds']:.0f} s).{beside}{left_out}"
    )
