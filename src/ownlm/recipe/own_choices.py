"""A model aligned with one's own choices: a minute of DPO on preference pairs, and a paired verdict."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownlm.data.message import Message
from ownlm.recipe.schema import AlignPart
from ownlm.recipe.stages.align import RATES
from ownlm.recipe.stages.instruct import HELDOUT
from ownlm.recipe.stages.preferences import ANSWER_TOKENS
from ownlm.runtime import atomic
from ownlm.runtime.errors import BudgetError, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import catch_interrupts
from ownlm.store.artifact import Artifact, sha256_of
from ownlm.store.workspace import Build, Workspace

CODE_VERSION = 2
LONGEST = 384
"""Tokens of a prompt with one answer; longer pairs are left out and counted."""
ROWS = 8
STEPS_A_MINUTE = 40
"""At most: so many steps see each of ten pairs some thirty times. A slower machine does what fits into the time."""
FEWEST_STEPS = 4
VERDICT_PROMPTS = 40


def align_pairs(
    model: str, pairs: Path, workspace: Workspace, screen: Screen, minutes: float, name: str | None = None
) -> Artifact:
    """DPO on the pairs of a file, then old and new model on the same held-out prompts.

    The verdict compares how many answers pass the verifier of the model's kit, paired by prompt; "too few to tell"
    when the interval of the difference holds zero.

    Raises:
        OwnLMError: a broken line, no usable pair, or a model that was not fine-tuned here.
    """
    from ownlm.align.preferences import read_pairs
    from ownlm.recipe.judging import judgeable
    from ownlm.recipe.kit import kits

    base = workspace.resolve(model, ("model",))
    found = read_pairs(pairs)
    if not (base.path / HELDOUT).is_file() or not judgeable(base.path / HELDOUT, kits()):
        raise OwnLMError(
            f"The model {model} brings no held-out prompts to judge a new one by; name an instructed model."
        )
    if not 0 < minutes < math.inf:
        raise BudgetError(f"{minutes:g} minutes are no budget for training; 1 is usual.")
    with catch_interrupts() as interruption:
        artifact, reused = workspace.make(
            "model",
            name or f"{base.name}-yours",
            lambda target: _build(target, base, found, minutes, screen, interruption),
            inputs={"base": base.id},
            settings={"stage": "aligned", "objective": "dpo", "pairs": sha256_of(pairs), "minutes": minutes,
                      "rates": RATES, "beta": AlignPart.beta, "chosen_weight": AlignPart.chosen_weight},
            code_version=CODE_VERSION,
            resumable=True,
        )  # fmt: skip
    # The same pairs under another name are the same model: it is reused, and answers to both names.
    workspace.point(name or artifact.name, artifact)
    verdict = artifact.metrics["verdict"]
    left_out = artifact.metrics["pairs_too_long"]
    without = f" ({left_out} longer than {artifact.metrics['longest']} tokens were left out)" if left_out else ""
    screen.say(
        f"{'Built before: ' if reused else ''}{artifact.name} learned from {artifact.metrics['pairs']} pairs{without}. "
        f"On {verdict['difference']['n']} held-out prompts {verdict['after']['value']:.0%} of its answers pass the "
        f"verifier, before {verdict['before']['value']:.0%}: {verdict['conclusion']}."
    )
    return artifact


def _key(prompt: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.text) for message in prompt)


def conclude(difference: dict[str, Any]) -> str:
    """ "better" or "worse" when the interval leaves zero out, else "too few to tell"."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "too few to tell"


def _steps(target: Build, minutes: float, reference_seconds: float) -> int:
    """Steps that fit into the time, from what the reference took for a batch; decided once, so that resuming agrees.

    A training step costs three such forward passes, and some more for the optimiser.
    """
    path = target.folder / "run-state" / "steps.json"
    if path.exists():
        return int(json.loads(path.read_text("utf-8")))
    fitting = int(60 * minutes / (3.5 * reference_seconds))
    steps = max(FEWEST_STEPS, min(fitting, round(STEPS_A_MINUTE * minutes)))
    atomic.write_json(path, steps)
    return steps


def _build(
    target: Build, base: Artifact, pairs: list[Any], minutes: float, screen: Screen, interruption: Any
) -> dict[str, Any]:
    import time

    import torch

    from ownlm.align.dpo import DpoObjective, reference_logprobs
    from ownlm.align.preferences import encode_pairs
    from ownlm.data.chat_format import ChatFormat
    from ownlm.data.tokenizer import Tokenizer
    from ownlm.engine.open import open_artifact, open_folder
    from ownlm.engine.request import SamplingParams
    from ownlm.model.files import load_model, save_model
    from ownlm.recipe.judging import answer_and_judge, askable, gain, judgeable, summary
    from ownlm.recipe.kit import kits
    from ownlm.runtime.threads import thread_budget
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.optimisers import Rates
    from ownlm.train.schedule import Schedule

    torch.set_num_threads(thread_budget())
    tokenizer, chat = Tokenizer.load(base.path), ChatFormat()
    longest = min(LONGEST, int(base.metrics["context"]))
    encoded, left_out = encode_pairs(pairs, tokenizer, chat, longest)
    if not encoded:
        raise OwnLMError(f"All {len(pairs)} pairs are longer than {longest} tokens.")
    # Whoever chose between two answers to a prompt has taught it: the verdict is on other prompts.
    asked = {_key(pair.prompt) for pair in pairs}
    examples = [each for each in judgeable(base.path / HELDOUT, kits()) if _key(each.prompt) not in asked]
    examples = askable(open_artifact(base), examples, ANSWER_TOKENS, VERDICT_PROMPTS)
    if not examples:
        raise OwnLMError(f"Every held-out prompt of {base.name} is among the pairs: none is left for the verdict.")
    decoder = load_model(base.path)
    started = time.perf_counter()
    reference = reference_logprobs(decoder, encoded, longest, tokenizer.end_of_text)
    rows = min(ROWS, len(encoded))
    steps = _steps(target, minutes, rows * (time.perf_counter() - started) / len(encoded))
    objective = DpoObjective(
        encoded,
        *reference,
        target.id,
        longest,
        rows,
        tokenizer.end_of_text,
        beta=AlignPart.beta,
        chosen_weight=AlignPart.chosen_weight,
    )
    settings = TrainSettings(Schedule(steps, warmup=0.1), Rates().scaled(*RATES))
    with screen.bar("Learning from your choices", steps, "steps") as bar:
        train(
            decoder, objective, settings, target.folder, target.state, interruption,
            on_metrics=lambda row: bar.update(row["step"], f"loss {row['loss']:.3f}"),
        )  # fmt: skip
    save_model(target.folder, decoder, tokenizer)
    for each in ("starters.json", "pair_prompts.json", HELDOUT):
        if (base.path / each).is_file():
            shutil.copyfile(base.path / each, target.folder / each)
    params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.8, seed=0)
    before, after = (
        answer_and_judge(each, examples, kits(), None, 1, params)
        for each in (open_artifact(base), open_folder(target.folder, target.name))
    )
    difference = gain(before, after, 0)["pass_rate"]
    return {
        "pairs": len(encoded),
        "pairs_too_long": left_out,
        "longest": longest,
        "parameters": decoder.config.parameters,
        "context": decoder.config.context,
        "steps": steps,
        "verdict": {
            "metric": "answers to held-out prompts that pass the verifier",
            "before": summary(before, 0)["pass_rate"],
            "after": summary(after, 0)["pass_rate"],
            "difference": difference,
            "conclusion": conclude(difference),
        },
    }
