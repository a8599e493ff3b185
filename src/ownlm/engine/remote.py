"""A model elsewhere, behind any OpenAI-compatible endpoint: `openai:BASE_URL#model`.

The key is read from `$OWNLM_REMOTE_KEY`, or from `$OPENAI_API_KEY` where the connection is encrypted or stays on this
machine; it is never shown or logged. What this protocol cannot ask for is refused, not left out.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx

from ownlm.data.message import Message
from ownlm.engine.remote_protocol import RemoteError, body_of, complaint, events_of, lines_of, path_of
from ownlm.engine.request import (
    Completion,
    Event,
    Finished,
    ModelFacts,
    SamplingParams,
    TextDelta,
    TextScore,
    TokenLogprob,
)  # fmt: skip
from ownlm.runtime.errors import OwnLMError, UnsupportedParameter
from ownlm.runtime.seeds import derive_seed

Prompt = str | Sequence[int] | Sequence[Message]
THREADS = 8
"""Requests that `generate` has under way at once."""
ATTEMPTS = 3
"""A busy endpoint (429, 503) is asked this often before its answer is an error."""
LONGEST_PAUSE = 20.0
"""Seconds between two attempts, whatever the endpoint suggests."""
TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class RemoteModel:
    """A `LanguageModel` over HTTP. Nothing is sent before the first request.

    The context's length is asked of the endpoint's list of models, and is 0 where that does not tell it. Without
    counts from the endpoint, `Usage` holds 0 prompt tokens and the number of pieces.
    """

    def __init__(self, base_url: str, model: str, key: str | None = None) -> None:
        self.base_url, self.model = base_url.rstrip("/"), model
        host = urlsplit(self.base_url).hostname or ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy from the environment has no business with an endpoint on this machine. Redirects are not followed,
        # so the key goes nowhere else.
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=not _is_here(host))

    @classmethod
    def from_name(cls, name: str) -> RemoteModel:
        """The model that `openai:BASE_URL#model` names, with the key from the environment.

        Raises:
            OwnLMError: the name is not of this form.
        """
        base_url, _, model = name.removeprefix("openai:").partition("#")
        parts = _split(base_url)
        if not model or parts is None:
            raise OwnLMError(
                f"'{_without_password(name)}' does not name a remote model: write openai:BASE_URL#MODEL, such as "
                "openai:http://127.0.0.1:8000/v1#first-model."
            )
        if parts.username or parts.password:
            raise OwnLMError("The address of a remote model must hold no password: put the key into OWNLM_REMOTE_KEY.")
        safe = parts.scheme == "https" or _is_here(parts.hostname or "")
        key = os.environ.get("OWNLM_REMOTE_KEY") or (os.environ.get("OPENAI_API_KEY") if safe else None)
        return cls(base_url, model, key or None)

    def __repr__(self) -> str:
        return f"RemoteModel({self.base_url!r}, {self.model!r})"

    @cached_property
    def facts(self) -> ModelFacts:
        """Name and endpoint; the context where the endpoint tells it."""
        return ModelFacts(
            name=self.model, id=f"openai:{self.base_url}#{self.model}", context=self._context(), stage="remote",
            extra={"endpoint": self.base_url},
        )  # fmt: skip

    # ---- the protocol

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[Event]:
        """See `LanguageModel.stream`. Text and tokens go to `/completions`, messages to `/chat/completions`.

        Raises:
            UnsupportedParameter: top_k, min_p or repetition_penalty, which the OpenAI API does not have.
            RemoteError: the endpoint cannot be reached, or refuses.
        """
        path, body = path_of(prompt), body_of(self.model, prompt, params, urlsplit(self.base_url).hostname or "")
        return self._stream(path, body)

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[Completion]:
        """See `LanguageModel.generate`; a few requests run at once."""

        def answer(index: int) -> Completion:
            own = params if params.seed is None else replace(params, seed=derive_seed(params.seed, index))
            return self._whole(prompts[index], own)

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(answer, range(len(prompts))))

    def score(self, texts: Sequence[str]) -> list[TextScore]:
        """Always raises `UnsupportedParameter`: these endpoints tell no log-probabilities of a given text."""
        raise UnsupportedParameter("score", "A remote model gives no log-probabilities of a text, so it cannot score.")

    def count_tokens(self, prompt: Prompt) -> int:
        """Always raises `UnsupportedParameter`: the tokenizer is the endpoint's."""
        raise UnsupportedParameter("count_tokens", "A remote model does not tell how it splits a text into tokens.")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    # ---- inside

    def _whole(self, prompt: Prompt, params: SamplingParams) -> Completion:
        pieces: list[str] = []
        logprobs: list[TokenLogprob] = []
        for event in self.stream(prompt, params):
            if isinstance(event, TextDelta):
                pieces.append(event.text)
                logprobs += event.logprobs
            elif isinstance(event, Finished):
                return Completion("".join(pieces), event.reason, event.usage, (), tuple(logprobs))
        raise RemoteError(f"{self.base_url} ended an answer without its end.")

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[Event]:
        try:
            with closing(self._opened(path, body)) as response:
                yield from events_of(lines_of(response.iter_text()), self.base_url)
        except httpx.HTTPError as error:
            raise self._broken(error) from error

    def _opened(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The response with its status checked and its body unread."""
        for attempt in range(1, ATTEMPTS + 1):
            request = self._client.build_request("POST", f"{self.base_url}{path}", json=body)
            response = self._client.send(request, stream=True)
            if response.is_success:
                return response
            with closing(response):
                response.read()
            if response.status_code not in (429, 503) or attempt == ATTEMPTS:
                raise complaint(response, self.base_url, self.model)
            time.sleep(_pause(response, attempt))
        raise AssertionError("unreachable")

    def _broken(self, error: httpx.HTTPError) -> RemoteError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return RemoteError(f"{self.base_url} cannot be reached ({error or type(error).__name__}): is it running?")
        return RemoteError(f"The connection to {self.base_url} broke off ({error or type(error).__name__}).")

    def _context(self) -> int:
        """From `/models`: our own servers tell it under `ownlm`, vLLM as `max_model_len`."""
        try:
            found = self._client.get(f"{self.base_url}/models", timeout=5.0).json()["data"]
            entry = next(each for each in found if each["id"] == self.model)
            context = (entry.get("ownlm") or {}).get("context") or entry.get("max_model_len") or 0
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return 0
        return context if isinstance(context, int) else 0


def _pause(response: httpx.Response, attempt: int) -> float:
    """Seconds: what the endpoint asks for, else 1, 2, ..."""
    try:
        asked = float(response.headers.get("Retry-After", ""))
    except ValueError:
        asked = float(2 ** (attempt - 1))
    return min(max(asked, 0.0), LONGEST_PAUSE)


def _split(url: str) -> Any:
    """The parts of an http(s) address, or None."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts if parts.scheme in ("http", "https") and parts.hostname else None


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_password(name: str) -> str:
    head, at, tail = name.rpartition("@")
    return f"...@{tail}" if at and head else name
