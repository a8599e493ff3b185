"""The requests of the OpenAI API, field by field: honoured, harmless, or refused by name; none is ignored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ownlm.data.message import ContentPart, Message, Role, TextPart
from ownlm.engine.request import LanguageModel, SamplingParams
from ownlm.runtime.errors import OwnLMError, UnsupportedParameter
from ownlm.runtime.seeds import derive_seed

COMPLETION_TOKENS = 16
"""What `/v1/completions` writes when it is not told how much, as OpenAI's does."""
INT64 = 2**63 - 1


class InvalidField(OwnLMError):
    """A field with a value that cannot be used; `name` is its path, such as `messages[0].content`."""

    code = "invalid_value"

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class Strict(BaseModel):
    """No guessing: unknown fields and values of another type are errors."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Body(Strict):
    """The whole of a request."""

    @model_validator(mode="before")
    @classmethod
    def _no_lone_surrogates(cls, data: Any) -> Any:
        """JSON can hold half of a character ("\\ud800"), which is no text in any encoding."""
        try:
            json.dumps(data, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidField("body", "The request holds half of a surrogate pair, which is not text.") from None
        return data


class StreamOptions(Strict):
    """`include_obfuscation` pads the chunks of OpenAI's servers; there is nothing to pad here."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GenerationRequest(Body):
    """What chat and plain completions share."""

    model: str = Field(min_length=1, max_length=500)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Honoured; top_k, min_p and repetition_penalty are extensions that other servers know too.
    n: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = Field(default=None, ge=-INT64, le=INT64)
    stop: str | list[str] | None = None
    max_tokens: int | None = None

    # Harmless: they change nothing in the answer.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: Literal["auto", "default"] | None = None

    # Refused unless empty, by `refused()`.
    logit_bias: dict[str, float] | None = None

    def unsupported(self) -> dict[str, bool]:
        """Field -> whether it asks for something that this server does not do."""
        return {"logit_bias": bool(self.logit_bias)}

    def check(self) -> None:
        """
        Raises:
            UnsupportedParameter: naming the first field that asks for something that this server does not do.
            InvalidField: fields that contradict each other.
        """
        for name, asked in self.unsupported().items():
            if asked:
                raise UnsupportedParameter(name, f"{name} is not supported here: leave it away.")
        if self.stream_options is not None and not self.stream:
            raise InvalidField("stream_options", "stream_options makes sense with stream=true only.")

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that counts the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, logprobs: int | None) -> SamplingParams:
        """The sampling parameters; a field that was not given, or null, has the house's default.

        Raises:
            UnsupportedParameter: a value out of its range.
        """
        names = (
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
            "seed", "max_tokens",
        )  # fmt: skip
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return SamplingParams(**given, stop=stop, logprobs=logprobs)


class ChatMessage(Strict):
    """One turn. The fields after `content` are in what clients send back of earlier answers."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: Any = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    function_call: Any = None

    def message(self, index: int) -> Message:
        """
        Raises:
            UnsupportedParameter: the message holds what no model here reads.
            InvalidField: it has no content.
        """
        where = f"messages[{index}]"
        for name in ("name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"):
            if getattr(self, name):
                raise UnsupportedParameter(f"{where}.{name}", f"{where}.{name} is not supported here: leave it away.")
        if self.content is None:
            raise InvalidField(f"{where}.content", f"{where} has no content.")
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, _parts(self.content, f"{where}.content"))


def _parts(content: str | list[dict[str, Any]], where: str) -> tuple[ContentPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    parts = []
    for index, part in enumerate(content):
        match part:
            case {"type": "text", "text": str(text), **rest} if not rest:
                parts.append(TextPart(text))
            case {"type": "image_url" | "input_image" | "image"}:
                name = f"{where}[{index}]"
                raise UnsupportedParameter(name, f"{name} is an image, and no model here can see: send text only.")
            case _:
                name = f"{where}[{index}]"
                raise UnsupportedParameter(name, f'{name} is not a part {{"type": "text", "text": "..."}}.')
    return tuple(parts)


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1_000)
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    store: bool | None = None
    parallel_tool_calls: bool | None = None
    prediction: Any = None  # a guess that makes other servers faster; the answer is the same

    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None

    def unsupported(self) -> dict[str, bool]:
        return {
            **super().unsupported(),
            "store": bool(self.store),
            "response_format": self.response_format not in (None, {"type": "text"}),
            "modalities": self.modalities not in (None, ["text"]),
            "tools": bool(self.tools),
            "tool_choice": self.tool_choice not in (None, "none", "auto"),
            "functions": bool(self.functions),
            "function_call": self.function_call not in (None, "none", "auto"),
            "audio": self.audio is not None,
            "reasoning_effort": self.reasoning_effort not in (None, "none"),
            "verbosity": self.verbosity is not None,
            "web_search_options": self.web_search_options is not None,
        }

    def check(self) -> None:
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidField("top_logprobs", "top_logprobs needs logprobs=true.")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise InvalidField("max_tokens", "max_tokens and max_completion_tokens differ: give one of them.")

    def params(self) -> SamplingParams:
        """Raises as `sampling`; a bad `max_completion_tokens` or `top_logprobs` is told under that name."""
        names = {"logprobs": "top_logprobs"}
        if self.max_tokens is None and self.max_completion_tokens is not None:
            names["max_tokens"] = "max_completion_tokens"
        try:
            params = self.sampling((self.top_logprobs or 0) if self.logprobs else None)
            if self.max_completion_tokens is not None:
                params = replace(params, max_tokens=self.max_completion_tokens)
        except UnsupportedParameter as error:
            if error.name not in names:
                raise
            name = names[error.name]
            raise UnsupportedParameter(name, str(error).replace(error.name, name)) from None
        return params

    def params_for(self, model: LanguageModel, params: SamplingParams) -> SamplingParams:
        """Without a limit the answer may fill the model's context, as with OpenAI's chat."""
        if self.max_tokens is None and self.max_completion_tokens is None and model.facts.context:
            return replace(params, max_tokens=model.facts.context)
        return params

    def conversation(self) -> list[Message]:
        """The messages.

        Raises:
            UnsupportedParameter: a message holds what no model here reads.
        """
        return [message.message(index) for index, message in enumerate(self.messages)]


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`. `prompt` is a text, tokens, or a list of either."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    def unsupported(self) -> dict[str, bool]:
        return {
            **super().unsupported(),
            "best_of": self.best_of not in (None, self.choices),
            "suffix": bool(self.suffix),
        }

    def check(self) -> None:
        super().check()
        if not self.prompt and self.prompt != "":
            raise InvalidField("prompt", "prompt is an empty list: give a text, tokens, or a list of either.")
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompts()):
            raise UnsupportedParameter("echo", "echo works for prompts given as text only.")
        if self.echo and self.logprobs is not None:
            raise UnsupportedParameter("echo", "echo together with logprobs is not supported here.")

    def prompts(self) -> list[str | list[int]]:
        """One entry a prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        texts = [each for each in self.prompt if isinstance(each, str)]
        lists = [each for each in self.prompt if isinstance(each, list)]
        tokens = [each for each in self.prompt if isinstance(each, int)]
        return [*texts, *lists] if not tokens else [tokens]

    def params(self) -> SamplingParams:
        """Raises as `sampling`."""
        params = self.sampling(self.logprobs)
        return params if self.max_tokens is not None else replace(params, max_tokens=COMPLETION_TOKENS)


def seeded(params: SamplingParams, choices: int) -> list[SamplingParams]:
    """One set of parameters a choice: the first as with n=1, the others with seeds derived from it."""
    if params.seed is None:
        return [params] * choices
    return [params, *(replace(params, seed=derive_seed(params.seed, "choice", i)) for i in range(1, choices))]


def field_path(location: Sequence[str | int]) -> str:
    """`("body", "messages", 0, "content")` as `messages[0].content`.

    A union's branch (pydantic adds its name, such as `str` or `list[str]`) is no part of the path.
    """
    path = ""
    for part in location[1:] if location and location[0] == "body" else location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):
            path += f".{part}" if path else part
    return path
