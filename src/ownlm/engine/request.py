"""What goes into an engine and what comes out: requests, sampling parameters, events.

Local and remote models speak the same protocol, so that the server, the Studio and the evaluations need not know
which one they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from ownlm.data.message import Message
from ownlm.runtime.errors import UnsupportedParameter

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens. Every field is honoured, or the engine raises `UnsupportedParameter`.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 switch those filters off; `min_p` keeps tokens of at least that
    share of the best one's probability. Penalties act on the tokens generated so far (`repetition_penalty` on the
    prompt's too). `stop` strings end the answer and are not part of it. `logprobs` asks for that many alternatives a
    token (None: no log-probabilities). `seed` makes the answer repeatable; None takes a fresh one.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        checks: list[tuple[str, bool, str]] = [
            ("max_tokens", self.max_tokens >= 1, "must be at least 1"),
            ("temperature", 0 <= self.temperature <= 10, "must lie between 0 and 10"),
            ("top_p", 0 < self.top_p <= 1, "must lie above 0 and at most at 1"),
            ("top_k", self.top_k >= 0, "must be 0 (off) or more"),
            ("min_p", 0 <= self.min_p <= 1, "must lie between 0 and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty <= 10, "must lie above 0 and at most at 10"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "must lie between -2 and 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "must lie between -2 and 2"),
            ("stop", all(self.stop) and len(self.stop) <= 16, "takes at most 16 strings, none of them empty"),
            ("logprobs", self.logprobs is None or 0 <= self.logprobs <= 20, "must lie between 0 and 20"),
        ]
        for name, holds, rule in checks:
            if not holds:
                raise UnsupportedParameter(name, f"{name}={getattr(self, name)!r}: {name} {rule}.")


@dataclass(frozen=True)
class TokenLogprob:
    """One chosen token with its log-probability (natural logarithm) and the best alternatives, best first."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True)
class TextDelta:
    """A piece of the answer; pieces joined give the whole. Never ends inside a UTF-8 character."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Finished:
    """The last event: why the answer ended.

    "stop": the model or a stop string; "length": `max_tokens` or context; "cancelled": something else broke it off,
    such as the content filter of a remote endpoint.
    """

    reason: FinishReason
    usage: Usage


Event = TextDelta | Finished


@dataclass(frozen=True)
class Completion:
    """A whole answer. `token_ids` are those generated, end token excluded (empty for remote models)."""

    text: str
    reason: FinishReason
    usage: Usage
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class TextScore:
    """How likely a text is under a model. `token_logprobs` are in nats, one a predicted token, first one included."""

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """Negative log-likelihood in bits over the UTF-8 bytes of the text."""
        return -sum(self.token_logprobs) / 0.6931471805599453 / max(1, self.bytes)


@dataclass(frozen=True)
class ModelFacts:
    """What the server and the pages tell about a model."""

    name: str
    id: str
    context: int
    parameters: int | None = None
    heldout_bits_per_byte: float | None = None
    stage: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class LanguageModel(Protocol):
    """One protocol for models here and elsewhere.

    `stream` yields `TextDelta`s and ends with one `Finished`; closing the iterator cancels the request within one
    step. That needs an event a step: a model here yields an empty `TextDelta` for a token that brings no text yet (some
    bytes of a character, the beginning of a stop string). Raises `ContextOverflow` before any work when the prompt does
    not fit, and `UnsupportedParameter` for what the model cannot honour. `max_tokens` beyond the context's end is
    allowed: the answer then ends with "length".
    """

    @property
    def facts(self) -> ModelFacts: ...

    def stream(self, prompt: str | Sequence[int] | Sequence[Message], params: SamplingParams) -> Iterator[Event]: ...

    def generate(
        self, prompts: Sequence[str | Sequence[int] | Sequence[Message]], params: SamplingParams
    ) -> list[Completion]:
        """Many prompts at once; with a seed, prompt i uses a seed derived from (seed, i)."""
        ...

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """Raises `UnsupportedParameter` for models that give no log-probabilities of a prompt."""
        ...

    def count_tokens(self, prompt: str | Sequence[int] | Sequence[Message]) -> int: ...
