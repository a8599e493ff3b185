"""Stage 7b: direct preference optimisation on the pairs, and what it changed on held-out prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ownlm.recipe.context import RunContext
from ownlm.recipe.stages.instruct import HELDOUT, read_examples, verifiable
from ownlm.recipe.stages.preferences import ANSWER_TOKENS, PAIRS, training_spans
from ownlm.recipe.stages.pretrain import STARTERS
from ownlm.runtime.errors import CorpusError
from ownlm.runtime.extensions import load_extension
from ownlm.runtime.seeds import derive_seed
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build

if TYPE_CHECKING:
    from ownlm.align.dpo import DpoObjective
    from ownlm.align.preferences import EncodedPair
    from ownlm.model.decoder import Decoder

CODE_VERSION = 3
RATES = (0.05, 0.0)
"""Of the pre-training rates: the matrices' share. Embeddings stay: moved, they cost twice the held-out loss."""
COPIED = (STARTERS, "pair_prompts.json", HELDOUT)


def make(context: RunContext) -> tuple[Artifact, bool]:
    """The aligned model, which the recipe's name stands for."""
    align, plan = context.recipe.align, context.plan
    artifact, reused = context.workspace.make(
        "model",
        context.recipe.name,
        lambda target: _build(context, target),
        inputs={
            **context.inputs("preferences", "plan", "corpus", "tokens"), "base": context.artifacts["instructed"].id,
        },
        settings={
            "stage": "aligned", "objective": align.objective, "beta": align.beta, "chosen_weight": align.chosen_weight,
            "steps": plan.dpo_steps, "rates": RATES, "seed": context.recipe.seed,
        },
        code_version=CODE_VERSION,
        resumable=True,
    )  # fmt: skip
    context.workspace.point(context.recipe.name, artifact)
    return artifact, reused


def _build(context: RunContext, target: Build) -> dict[str, Any]:
    from ownlm.align.preferences import encode_pairs, read_pairs
    from ownlm.data.chat_format import ChatFormat
    from ownlm.data.tokenizer import Tokenizer
    from ownlm.engine.open import open_artifact, open_folder
    from ownlm.engine.request import SamplingParams
    from ownlm.model.files import load_model, save_model
    from ownlm.model.kernels import Kernels, use
    from ownlm.recipe.judging import answer_and_judge, askable, gain, summary
    from ownlm.recipe.training import measure_heldout, set_threads

    plan, align, seed = context.plan, context.recipe.align, context.recipe.seed
    set_threads(plan)
    instructed = context.artifacts["instructed"]
    tokenizer, chat = Tokenizer.load(instructed.path), ChatFormat()
    pairs = read_pairs(context.path("preferences") / PAIRS) if context.artifacts["preferences"].metrics["pairs"] else []
    encoded, left_out = encode_pairs(pairs, tokenizer, chat, plan.dpo_length)
    # Rows of another shape than the compiled block's: compiling again would cost more than it gains.
    kernels = Kernels(plan.kernels.precision, plan.kernels.attention, compiled=False)
    decoder = use(load_model(instructed.path), kernels)
    # A model that says nothing yet, or nothing short enough, gives no pair: then it stays as it is.
    steps, seconds = _train(context, target, decoder, encoded, tokenizer.end_of_text) if encoded else (0, 0.0)
    save_model(target.folder, decoder, tokenizer)
    for name in COPIED:
        shutil.copyfile(instructed.path / name, target.folder / name)
    models = open_artifact(instructed), open_folder(target.folder, context.recipe.name)
    heldout = verifiable(context, read_examples(instructed.path / HELDOUT))
    heldout = askable(models[0], heldout, ANSWER_TOKENS, plan.heldout_prompts)
    if not heldout:
        raise CorpusError(f"No held-out prompt leaves room for an answer in a context of {plan.context} tokens.")
    context.screen.detail(f"Asking both models {len(heldout)} held-out prompts.")
    spans = training_spans(context)
    params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=align.temperature, seed=derive_seed(seed, "judge"))
    before = answer_and_judge(models[0], heldout, context.kits, spans, 2, params)
    context.interruption.check()
    after = answer_and_judge(models[1], heldout, context.kits, spans, 2, params)
    loss = measure_heldout(context, decoder, tokenizer)
    base_loss = float(instructed.metrics["heldout_bits_per_byte"])
    first, last = summary(before, seed), summary(after, seed)
    checks = sorted({*first["reasons"], *last["reasons"]})
    samples = [
        {"prompt": b.example.prompt[-1].text, "before": b.answer, "after": a.answer,
         "before_failed": list(b.verdict.reasons), "after_failed": list(a.verdict.reasons)}
        for group_before, group_after in zip(before, after, strict=True)
        for b, a in zip(group_before[:1], group_after[:1], strict=True)
    ]  # fmt: skip
    lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    (target.folder / "answers.jsonl").write_text("".join(lines), "utf-8")
    return {
        "pairs": len(encoded),
        "pairs_too_long": left_out,
        "steps": steps,
        "seconds": seconds,
        "before": {**first, "heldout_bits_per_byte": base_loss},
        "after": {**last, "heldout_bits_per_byte": loss["heldout_bits_per_byte"]},
        "gain": gain(before, after, seed),
        "bits_per_byte_change": round(loss["heldout_bits_per_byte"] / base_loss - 1, 5),
        "reasons": {check: [first["reasons"].get(check, 0), last["reasons"].get(check, 0)] for check in checks},
        "parameters": decoder.config.parameters,
        "context": decoder.config.context,
        **loss,
    }


def _train(
    context: RunContext, target: Build, decoder: Decoder, pairs: Sequence[EncodedPair], pad: int
) -> tuple[int, float]:
    """DPO in place, with the decoder as it comes as the reference; returns the steps and seconds."""
    from ownlm.align.dpo import reference_logprobs
    from ownlm.recipe.training import live_bar
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.schedule import Schedule

    plan, align = context.plan, context.recipe.align
    reference = reference_logprobs(decoder, pairs, plan.dpo_length, pad)
    make_objective = cast("type[DpoObjective]", load_extension("ownlm.objectives", align.objective))
    objective = make_objective(
        pairs, *reference, context.artifacts["preferences"].id, plan.dpo_length, min(plan.dpo_rows, len(pairs)), pad,
        align.beta, align.chosen_weight, context.recipe.seed,
    )  # fmt: skip
    settings = TrainSettings(
        Schedule(plan.dpo_steps, warmup=0.1, decay=0.5), plan.rates.scaled(*RATES), peak_flops=plan.peak_flops
    )
    with live_bar(context, "Aligning", plan.dpo_steps) as show:
        result = train(decoder, objective, settings, target.folder, target.state, context.interruption, on_metrics=show)
    return result.steps, result.seconds


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What alignment gained, and what it cost."""
    found = artifact.metrics
    before, after, gained = (found[key]["pass_rate"] for key in ("before", "after", "gain"))
    if not found["pairs"]:
        return "No preference pair could be used, so the aligned model is the instructed one."
    left_out = found["pairs_too_long"]
    without = f" {left_out:,} pairs longer than {context.plan.dpo_length} tokens were left out." if left_out else ""
    return (
        f"Aligned by {found['pairs']:,} preference pairs: {after['value']:.0%} of the answers to held-out prompts pass "
        f"the verifier instead of {before['value']:.0%} (gain {round(100 * gained['value'])} points, 95 % interval "
        f"{round(100 * gained['low'])} to {round(100 * gained['high'])}); held-out text costs "
        f"{found['bits_per_byte_change']:+.1%} bits per byte.{without}"
    )
