"""Stage 6: supervised fine-tuning on instruction pairs that the kits derive from the corpus."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.align.examples import InstructionExample
from ownlm.data.document import Document, Split
from ownlm.recipe.context import RunContext
from ownlm.recipe.kit import kit_for
from ownlm.recipe.stages.pretrain import STARTERS
from ownlm.runtime import atomic
from ownlm.runtime.errors import CorpusError
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

if TYPE_CHECKING:
    from ownlm.align.sft import SftObjective
    from ownlm.model.decoder import Decoder

CODE_VERSION = 3
TRAIN, HELDOUT = "instructions.jsonl", "heldout-instructions.jsonl"
PAIR_PROMPTS = 200
"""Held-out prompts kept beside the model, for people's blind comparisons."""
VERIFIABLE_SHARE = 0.5
"""Of the examples that the kits can verify, since those are what alignment works on."""
RATES = (0.25, 0.1)
"""Of the pre-training rates: the matrices' share, and that of embeddings and vectors, which forget fastest."""
KIT = "kit"
"""The key in an example's `meta` that names its kit."""


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The instructed model."""
    artifact, reused = context.workspace.make(
        "model",
        f"{context.recipe.name}-instructed",
        lambda target: _build(context, target),
        inputs=context.inputs("base", "corpus", "plan"),
        settings={
            "stage": "instructed", "objective": "sft", "kits": list(context.recipe.kits), "seed": context.recipe.seed,
            "steps": context.plan.sft_steps, "rates": RATES, "verifiable_share": VERIFIABLE_SHARE,
        },
        code_version=CODE_VERSION,
        resumable=True,
    )  # fmt: skip
    context.workspace.point(f"{context.recipe.name}-instructed", artifact)
    return artifact, reused


def derive(context: RunContext, split: Split) -> list[InstructionExample]:
    """All instruction examples of a split, each marked with its kit, in a seeded order.

    Raises:
        CorpusError: the kits find nothing to ask about in these documents.
    """
    from ownlm.data.corpus import read_documents

    examples = list(_each(context, read_documents(context.path("corpus"), split)))
    if not examples:
        raise _nothing_to_ask(context, split)
    random.Random(derive_seed(context.recipe.seed, "examples", split)).shuffle(examples)
    return examples


def check(context: RunContext) -> None:
    """Looks for a first example in each split, before anything is trained.

    Raises:
        CorpusError: as `derive`.
    """
    from ownlm.data.corpus import read_documents

    for split in ("train", "heldout"):
        if next(_each(context, read_documents(context.path("corpus"), split)), None) is None:
            raise _nothing_to_ask(context, split)


def _each(context: RunContext, documents: Sequence[Document]) -> Iterator[InstructionExample]:
    for document in documents:
        kit = kit_for(document, context.kits)
        for example in kit.examples(document) if kit else ():
            meta = {**example.meta, KIT: kit.name if kit else ""}
            yield InstructionExample(example.messages, example.source, example.task, meta)


def _nothing_to_ask(context: RunContext, split: Split) -> CorpusError:
    return CorpusError(
        f"The kits {', '.join(context.recipe.kits)} found no instruction example in the {split} documents. "
        "Add documents with headings, paragraphs or documented functions."
    )


def verifiable(context: RunContext, examples: Sequence[InstructionExample]) -> list[InstructionExample]:
    """Those that their kit can verify well enough for alignment; all of them, where there is none such."""
    kits = {kit.name: kit for kit in context.kits}
    return [example for example in examples if kits[example.meta[KIT]].verifiable(example)] or list(examples)


def write_examples(path: Path, examples: Sequence[InstructionExample]) -> None:
    """One JSON line an example."""
    lines = (json.dumps(example.to_json(), ensure_ascii=False) + "\n" for example in examples)
    atomic.write_text(path, "".join(lines))


def read_examples(path: Path) -> list[InstructionExample]:
    """The reverse of `write_examples`."""
    return [InstructionExample.from_json(json.loads(line)) for line in path.read_text("utf-8").split("\n") if line]


def _mixture(context: RunContext, examples: Sequence[InstructionExample]) -> list[InstructionExample]:
    """The verifiable examples at their share of the whole, in a seeded order."""
    wanted = verifiable(context, examples)
    keys = {id(example) for example in wanted}
    others = [example for example in examples if id(example) not in keys]
    if wanted:
        others = others[: round(len(wanted) * (1 - VERIFIABLE_SHARE) / VERIFIABLE_SHARE)]
    mixed = [*wanted, *others]
    random.Random(derive_seed(context.recipe.seed, "mixture")).shuffle(mixed)
    return mixed


def _build(context: RunContext, target: Build) -> dict[str, Any]:
    from ownlm.align.packing import pack
    from ownlm.align.sft import SftObjective, encode_examples
    from ownlm.data.chat_format import ChatFormat
    from ownlm.data.tokenizer import Tokenizer
    from ownlm.model.files import load_model, save_model
    from ownlm.model.kernels import use
    from ownlm.recipe.training import live_bar, measure_heldout, set_threads
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.schedule import Schedule

    plan = context.plan
    set_threads(plan)
    train_path, heldout_path = target.folder / TRAIN, target.folder / HELDOUT
    if not (train_path.exists() and heldout_path.exists()):
        write_examples(train_path, _mixture(context, derive(context, "train")))
        write_examples(heldout_path, derive(context, "heldout"))
    examples, heldout = read_examples(train_path), read_examples(heldout_path)
    base = context.path("base")
    tokenizer, chat = Tokenizer.load(base), ChatFormat()
    pad = tokenizer.end_of_text
    packed = pack(encode_examples(examples, tokenizer, chat), plan.context, pad, context.recipe.seed)
    if not packed.examples:
        raise CorpusError(f"All {packed.too_long} instruction examples are longer than {plan.context} tokens.")
    held = pack(encode_examples(heldout[:160], tokenizer, chat), plan.context, pad, context.recipe.seed)
    decoder = use(load_model(base), plan.kernels)
    objective = SftObjective(packed, context.artifacts["base"].id, plan.rows, pad, context.recipe.seed)
    validation = SftObjective(held, "heldout", plan.rows, pad)
    before_path = target.folder / "run-state" / "validation-before.json"
    if before_path.exists():
        before = json.loads(before_path.read_text("utf-8"))
    else:
        before = _validate(decoder, validation)
        atomic.write_json(before_path, before)
    settings = TrainSettings(
        Schedule(plan.sft_steps, warmup=0.05, decay=0.7), plan.rates.scaled(*RATES), peak_flops=plan.peak_flops
    )
    with live_bar(context, "Fine-tuning", plan.sft_steps) as show:
        result = train(decoder, objective, settings, target.folder, target.state, context.interruption, on_metrics=show)
    save_model(target.folder, decoder, tokenizer)
    asked = [
        example.prompt
        for example in verifiable(context, heldout)
        if len(chat.encode(tokenizer, example.prompt, add_generation_prompt=True)[0]) <= plan.context // 2
    ]
    shown = [[message.to_json() for message in prompt] for prompt in asked]
    atomic.write_json(target.folder / "pair_prompts.json", shown[:PAIR_PROMPTS])
    starters = json.loads((base / STARTERS).read_text("utf-8"))
    atomic.write_json(target.folder / STARTERS, starters)
    heldout_loss = measure_heldout(context, decoder, tokenizer)
    return {
        "examples": packed.examples,
        "too_long": packed.too_long,
        "tasks": _count(examples),
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "validation_loss_before": round(before, 4),
        "validation_loss_after": round(_validate(decoder, validation), 4),
        "parameters": decoder.config.parameters,
        "context": decoder.config.context,
        **heldout_loss,
    }


def _validate(decoder: Decoder, objective: SftObjective) -> float:
    """Mean nats a token of the assistant's, on held-out conversations."""
    import torch

    from ownlm.model.kernels import eager

    total = weight = 0.0
    with torch.no_grad(), eager(decoder):
        for first in range(0, len(objective.packed.ids), objective.rows):
            rows = range(first, min(first + objective.rows, len(objective.packed.ids)))
            batch = objective.batch(list(rows))
            total += float(objective.loss(decoder, batch))
            weight += batch.weight
    return total / max(1.0, weight)


def _count(examples: Sequence[InstructionExample]) -> dict[str, int]:
    tasks: dict[str, int] = {}
    for example in examples:
        tasks[example.task] = tasks.get(example.task, 0) + 1
    return tasks


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What was taught."""
    found = artifact.metrics
    tasks = ", ".join(f"{count:,} {task}" for task, count in sorted(found["tasks"].items()))
    without = f" {found['too_long']:,} longer ones than the context were left out." if found["too_long"] else ""
    return (
        f"Fine-tuned on conversations made from the corpus ({tasks}): held-out answers cost "
        f"{found['validation_loss_after']:.2f} nats a token instead of {found['validation_loss_before']:.2f}.{without}"
    )
