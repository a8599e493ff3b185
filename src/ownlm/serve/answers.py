"""What one request asks of a model, worked off in the model's thread: its prompts and choices, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ownlm.data.message import Message
from ownlm.engine.request import Event, LanguageModel, SamplingParams
from ownlm.serve.familiarity import Familiarity, familiarity
from ownlm.serve.gateway import Prompt


@dataclass(frozen=True)
class Ask:
    """One answer wanted; `choice` counts through the prompts and the choices of each."""

    choice: int
    prompt_index: int
    prompt: Prompt
    params: SamplingParams


@dataclass(frozen=True)
class Note:
    """What is said beside the answers."""

    model_id: str
    familiarity: Familiarity | None = None

    def to_json(self) -> dict[str, object]:
        """The response's `ownlm` field; what is not known is left away."""
        found: dict[str, object] = {"model_id": self.model_id}
        if self.familiarity is not None:
            found["prompt_bits_per_byte"] = round(self.familiarity.prompt_bits_per_byte, 4)
            if self.familiarity.unlike_training is not None:
                found["unlike_training"] = self.familiarity.unlike_training
        return found


@dataclass(frozen=True)
class Piece:
    """One event of one answer."""

    ask: Ask
    event: Event
    note: Note


def pieces(
    model: LanguageModel,
    asks: Sequence[Ask],
    fit: Callable[[LanguageModel, SamplingParams], SamplingParams],
    messages: Sequence[Message] | None,
) -> Iterator[Piece]:
    """Streams every answer. `fit` completes the parameters by what only the model tells.

    `messages` are judged for familiarity before the first answer, while the model is free.
    """
    note = Note(model.facts.id, familiarity(model, messages) if messages else None)
    for ask in asks:
        events = model.stream(ask.prompt, fit(model, ask.params))
        try:
            for event in events:
                yield Piece(ask, event, note)
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
