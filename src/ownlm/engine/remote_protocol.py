"""The OpenAI API from the client's side: what a request looks like, and what its stream of events says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

from ownlm.data.message import Message
from ownlm.engine.request import (
    Event,
    Finished,
    FinishReason,
    SamplingParams,
    TextDelta,
    TokenLogprob,
    Usage,
)  # fmt: skip
from ownlm.runtime.errors import OwnLMError, UnsupportedParameter

Prompt = str | Sequence[int] | Sequence[Message]
Json = dict[str, Any]
NEUTRAL: dict[str, float] = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Parameters that the OpenAI API does not have, with the values that ask for nothing."""

REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "cancelled", "abort": "cancelled"}
"""What their reasons mean here; all others ("stop", "tool_calls", "eos_token", ...) are the model's own end: "stop"."""


class RemoteError(OwnLMError):
    """A remote endpoint cannot be reached, refuses, or answers with something else than the protocol."""

    http_status = 502

    def __init__(self, message: str, code: str = "remote_error") -> None:
        self.code = code
        super().__init__(message)


def is_chat(prompt: Prompt) -> bool:
    """Whether these are messages."""
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Message)


def path_of(prompt: Prompt) -> str:
    """The endpoint for this sort of prompt."""
    return "/chat/completions" if is_chat(prompt) else "/completions"


def body_of(model: str, prompt: Prompt, params: SamplingParams, host: str = "") -> Json:
    """The request; parameters at their neutral values are left out, since not every endpoint knows all of them.

    Raises:
        UnsupportedParameter: a parameter that the OpenAI API does not have.
    """
    for name, neutral in NEUTRAL.items():
        if getattr(params, name) != neutral:
            raise UnsupportedParameter(
                name, f"{name}={getattr(params, name):g}: a remote model has no such parameter; use {neutral:g} (off)."
            )
    chat = is_chat(prompt)
    # OpenAI's newer models refuse `max_tokens`; most other servers know nothing else.
    limit = "max_completion_tokens" if chat and host == "api.openai.com" else "max_tokens"
    body: Json = {
        "model": model, "stream": True, "stream_options": {"include_usage": True},
        limit: params.max_tokens, "temperature": params.temperature,
    }  # fmt: skip
    if chat:
        body["messages"] = [_message(each) for each in prompt if isinstance(each, Message)]
    else:
        body["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
    neutral_values = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": None}
    body |= {name: getattr(params, name) for name, value in neutral_values.items() if getattr(params, name) != value}
    if params.stop:
        body["stop"] = list(params.stop)
    if params.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": params.logprobs} if chat else {"logprobs": params.logprobs}
    return body


def _message(message: Message) -> Json:
    try:
        return {"role": message.role, "content": message.text}
    except ValueError as error:
        raise UnsupportedParameter("messages", f"Only text is sent to remote models: {error}.") from None


def lines_of(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, without their ends.

    Only "\n" and "\r\n" end a line: `str.splitlines` also cuts at U+2028, U+2029 and U+0085, which JSON may hold.
    """
    held: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        held.append(first)
        for other in others:
            yield "".join(held).removesuffix("\r")
            held = [other]
    if last := "".join(held).removesuffix("\r"):
        yield last


def events_of(lines: Iterable[str], base_url: str) -> Iterator[Event]:
    """The server-sent events of one answer, as ours.

    Raises:
        RemoteError: the endpoint reports an error, or the stream is cut off or makes no sense.
    """
    reason: FinishReason | None = None
    usage: Usage | None = None
    pieces = 0
    for line in lines:
        if not line.startswith("data:"):
            continue  # comments, blank lines, names of events
        data = line[5:].strip()
        if data == "[DONE]":
            break
        deltas, new_reason, new_usage = _parsed(data, base_url)
        reason, usage = new_reason or reason, new_usage or usage
        pieces += len(deltas)
        yield from deltas
    if reason is None:
        raise RemoteError(f"{base_url} cut an answer off.")
    yield Finished(reason, usage or Usage(0, pieces))


def _parsed(data: str, base_url: str) -> tuple[list[TextDelta], FinishReason | None, Usage | None]:
    """The pieces of one chunk that are not empty, and the reason and the counts where it tells them."""
    try:
        chunk = json.loads(data)
        error = chunk.get("error")
        choices = () if error else chunk.get("choices") or ()
        deltas = [delta for choice in choices if (delta := _delta(choice)).text or delta.logprobs]
        reasons: list[FinishReason] = [
            REASONS.get(choice["finish_reason"], "stop") for choice in choices if choice.get("finish_reason")
        ]
        usage = _usage(chunk.get("usage"))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError):
        raise RemoteError(f"{base_url} sent something else than the OpenAI protocol: {data[:100]!r}.") from None
    if error:
        message = error.get("message") if isinstance(error, dict) else error
        raise RemoteError(f"{base_url} broke the answer off: {message}")
    return deltas, reasons[-1] if reasons else None, usage


def _text(found: Any) -> str:
    """A piece of text, which may be left out.

    Raises:
        TypeError: it is something else.
    """
    if found is not None and not isinstance(found, str):
        raise TypeError(f"a text is {type(found).__name__}")
    return found or ""


def _delta(choice: Json) -> TextDelta:
    found = choice.get("logprobs") or {}
    if "delta" in choice:
        logprobs = tuple(_token_logprob(each) for each in found.get("content") or ())
        return TextDelta(_text((choice["delta"] or {}).get("content")), logprobs)
    tops = found.get("top_logprobs") or [{}] * len(found.get("tokens") or ())
    values = zip(found.get("tokens") or (), found.get("token_logprobs") or (), tops)
    return TextDelta(
        _text(choice.get("text")),
        tuple(
            TokenLogprob(
                token,
                token.encode(),
                float(value or 0),
                tuple((t, t.encode(), float(v)) for t, v in (top or {}).items()),
            )
            for token, value, top in values
        ),
    )


def _token_logprob(entry: Json) -> TokenLogprob:
    top = tuple(
        (_text(each["token"]), _bytes(each), float(each["logprob"])) for each in entry.get("top_logprobs") or ()
    )
    return TokenLogprob(_text(entry["token"]), _bytes(entry), float(entry["logprob"]), top)


def _bytes(entry: Json) -> bytes:
    data = entry.get("bytes")
    return bytes(data) if data is not None else str(entry["token"]).encode()


def _usage(found: Any) -> Usage | None:
    if not isinstance(found, dict):
        return None
    return Usage(int(found.get("prompt_tokens") or 0), int(found.get("completion_tokens") or 0))


def complaint(response: httpx.Response, base_url: str, model: str) -> RemoteError:
    """What a refused request says, as one sentence."""
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), str(error.get("code") or "remote_error")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = response.text.strip()[:200] or response.reason_phrase, "remote_error"
    status = response.status_code
    if status in (401, 403):
        return RemoteError(f"{base_url} refuses the key ({message}). Set OWNLM_REMOTE_KEY to a valid one.", code)
    if status == 404:
        return RemoteError(f"{base_url} does not serve '{model}' ({message}).", code)
    if 300 <= status < 400:
        return RemoteError(
            f"{base_url} has moved to {response.headers.get('location', 'elsewhere')}: use that address."
        )
    found = RemoteError(f"{base_url} answered with status {status}: {message}", code)
    if 400 <= status < 500:
        found.http_status = 400
    return found
