"""Whether a prompt is like anything that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ownlm.data.message import Message
from ownlm.engine.request import LanguageModel
from ownlm.runtime.errors import UnsupportedParameter

FACTOR = 2.0
"""A prompt that costs more than this many times the held-out bits per byte is unlike the training data."""
LEAST_BYTES = 40
"""Shorter messages are not judged: their bits per byte vary too much."""
NOTE = "This is unlike anything the model was trained on, so do not rely on the answer."


@dataclass(frozen=True)
class Familiarity:
    """How surprising the last user message is to the model; `unlike_training` None where there is no yardstick."""

    prompt_bits_per_byte: float
    unlike_training: bool | None


def is_unlike(bits_per_byte: float, heldout_bits_per_byte: float) -> bool:
    """The rule: far above what the model needs for held-out text of the kind that it was trained on."""
    return bits_per_byte > FACTOR * heldout_bits_per_byte


def judged_text(messages: Sequence[Message]) -> str | None:
    """The last user message, where it is long enough to judge."""
    last = next((message for message in reversed(messages) if message.role == "user"), None)
    if last is None or len(last.text.encode("utf-8", "surrogatepass")) < LEAST_BYTES:
        return None
    return last.text


def familiarity(model: LanguageModel, messages: Sequence[Message]) -> Familiarity | None:
    """The last user message scored under the model; None where it is too short or the model gives no scores.

    A prompt that does not fit the context is not scored either: it will not be answered.
    """
    text = judged_text(messages)
    if text is None:
        return None
    try:
        if model.count_tokens(messages) >= model.facts.context:
            return None
        bits = model.score([text])[0].bits_per_byte
    except UnsupportedParameter:
        return None
    heldout = model.facts.heldout_bits_per_byte
    return Familiarity(bits, None if heldout is None else is_unlike(bits, heldout))
