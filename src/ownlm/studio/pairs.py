"""Blind pairs: two answers of one model, or of two, side by side without a name, and what became of the choices."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ownlm.data.message import Message
from ownlm.engine.request import SamplingParams
from ownlm.runtime import atomic
from ownlm.score.intervals import wilson
from ownlm.store.artifact import Artifact
from ownlm.store.feedback import Feedback
from ownlm.studio.jsonl import read_json
from ownlm.studio.lineage import Shelf

Side = Literal["left", "right"]
TEMPERATURE = 0.9
"""High enough that two answers to one prompt differ."""
TRIES = 3
"""How often another second answer is asked for while it equals the first."""


@dataclass(frozen=True)
class Sampled:
    """An answer, the model that gave it and how it was sampled."""

    model_id: str
    text: str
    sampling: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As the feedback database keeps it."""
        return {"model_id": self.model_id, "text": self.text, "sampling": self.sampling}


@dataclass(frozen=True)
class Pair:
    """Answers a and b to a prompt; `order` says which stands on the left: "ab" or "ba"."""

    prompt: tuple[Message, ...]
    a: Sampled
    b: Sampled
    order: Literal["ab", "ba"]

    @property
    def shown(self) -> tuple[Sampled, Sampled]:
        """Left and right."""
        return (self.a, self.b) if self.order == "ab" else (self.b, self.a)

    def verdict(self, choice: str) -> str:
        """What the choice of a place ("left", "right") says about the answers; the other choices stay as they are."""
        if choice not in ("left", "right"):
            return choice
        return self.order[0] if choice == "left" else self.order[1]


def feedback(pair: Pair, choice: str, session: str, seconds: float) -> Feedback:
    """A choice for the database."""
    return Feedback(
        kind="pair",
        session=session,
        prompt=[message.to_json() for message in pair.prompt],
        answers=[pair.a.to_json(), pair.b.to_json()],
        verdict=pair.verdict(choice),
        order_shown=pair.order,
        seconds_taken=round(seconds, 2),
    )


async def make_pair(
    shelf: Shelf, models: tuple[str, str], prompt: Sequence[Message], tokens: int, rng: random.Random
) -> Pair:
    """Asks the model (or both) for two answers; `models` are artifact ids or served names.

    Two answers of one model should differ, so the second is asked for again, a few times, while it equals the first.
    """
    first = await _sample(shelf, models[0], prompt, tokens, rng)
    second = await _sample(shelf, models[1], prompt, tokens, rng)
    for _ in range(TRIES - 1):
        if second.text != first.text:
            break
        second = await _sample(shelf, models[1], prompt, tokens, rng)
    return Pair(tuple(prompt), first, second, rng.choice(("ab", "ba")))


async def _sample(shelf: Shelf, model: str, prompt: Sequence[Message], tokens: int, rng: random.Random) -> Sampled:
    params = SamplingParams(max_tokens=tokens, temperature=TEMPERATURE, seed=rng.randrange(2**31))
    text = await shelf.text(model, prompt, params)
    sampling = {"temperature": TEMPERATURE, "max_tokens": tokens, "seed": params.seed}
    return Sampled(model, text, sampling)


def prompts_for(model: Artifact | None, starters: Sequence[str]) -> list[tuple[Message, ...]]:
    """The held-out prompts that the model's folder brings, else its starters."""
    found = []
    listed = read_json(model.path / "pair_prompts.json") if model else None
    for entry in listed if isinstance(listed, list) else []:
        try:
            messages = tuple(Message.from_json(message) for message in entry)
            if messages and all(isinstance(message.text, str) for message in messages):
                found.append(messages)
        except (ValueError, AttributeError, TypeError):
            continue
    return found or [(Message.of("user", starter),) for starter in starters]


# ---- what became of the choices


def preferences(choices: Sequence[Feedback]) -> Iterator[dict[str, Any]]:
    """The choices between a and b as lines for `ownlm align`; ties, bad pairs and skipped ones teach nothing."""
    for each in choices:
        if each.verdict in ("a", "b"):
            a, b = (str(answer.get("text", "")) for answer in each.answers)
            chosen, rejected = (a, b) if each.verdict == "a" else (b, a)
            if chosen != rejected:
                yield {"prompt": each.prompt, "chosen": chosen, "rejected": rejected}


def write_preferences(choices: Sequence[Feedback], path: Path) -> int:
    """Writes the file of pairs; returns how many there are."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in preferences(choices)]
    atomic.write_text(path, "".join(lines))
    return len(lines)


def tally(choices: Sequence[Feedback], new_id: str) -> tuple[int, int, str]:
    """Of the choices between an old and a new model: how many preferred the new one, of how many that decided, and
    what that tells: "better", "worse" or "too few to tell" (Wilson's 95 % interval against one half).
    """
    winners = [str(each.answers[each.verdict == "b"].get("model_id")) for each in choices if each.verdict in ("a", "b")]
    wins = sum(winner == new_id for winner in winners)
    if not winners:
        return 0, 0, "too few to tell"
    interval = wilson(wins, len(winners))
    told = "better" if interval.low > 0.5 else "worse" if interval.high < 0.5 else "too few to tell"
    return wins, len(winners), told
