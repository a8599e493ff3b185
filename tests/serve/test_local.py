"""A model of one's own behind the API: the same answers as in the program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

import tiny
from ownlm.data.message import Message
from ownlm.engine.request import SamplingParams
from ownlm.model.files import save_model
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.store.workspace import Build, Workspace
from server_types import serving

ASK: list[Any] = [{"role": "user", "content": "def f"}]


@pytest.fixture
def local(workspace: Workspace) -> Iterator[openai.OpenAI]:
    """The client of a server of one artifact, opened by the house's own opener."""

    def build(build: Build) -> dict[str, Any]:
        save_model(build.folder, tiny.decoder(), tiny.tokenizer())
        return {"heldout_bits_per_byte": 1.25, "context": 64}

    made, _ = workspace.make("model", "tiny", build, settings={"stage": "base"})
    workspace.point("first-model", made)
    with (
        serving(create_app(ModelSet([], workspace), workspace)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def test_the_same_answers_as_in_the_program(local: openai.OpenAI) -> None:
    assert [model.id for model in local.models.list()] == ["first-model"]
    (expected,) = tiny.model().generate(["def"], SamplingParams(temperature=0, max_tokens=12))
    answer = local.completions.create(model="first-model", prompt="def", temperature=0, max_tokens=12)
    assert answer.choices[0].text == expected.text
    assert answer.choices[0].finish_reason == expected.reason
    assert answer.usage is not None
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    (expected,) = tiny.model().generate([[Message.of("user", "def f")]], SamplingParams(temperature=0, max_tokens=9))
    chunks = local.chat.completions.create(
        model="first-model", messages=ASK, temperature=0, max_tokens=9, stream=True
    )  # fmt: skip
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text


def test_a_seed_repeats_the_answer_and_the_choices_differ(local: openai.OpenAI) -> None:
    first, second = (
        local.chat.completions.create(model="first-model", messages=ASK, temperature=1.5, seed=3, n=2, max_tokens=12)
        for _ in range(2)
    )
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in second.choices]
    assert texts[0] != texts[1]


def test_a_prompt_that_does_not_fit_the_context(local: openai.OpenAI) -> None:
    long: list[Any] = [{"role": "user", "content": "def add(a, b):\n" * 50}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"The prompt has \d+ tokens, but .* holds 64"):
            local.chat.completions.create(model="first-model", messages=long, stream=stream)  # type: ignore[call-overload]


def test_an_answer_without_a_limit_ends_with_the_context(local: openai.OpenAI) -> None:
    answer = local.chat.completions.create(model="first-model", messages=ASK, temperature=2)
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "stop" or answer.usage.total_tokens == 64


def test_strange_text_is_judged(local: openai.OpenAI) -> None:
    strange: list[Any] = [{"role": "user", "content": "ÄÖÜ ÄÖÜ ÄÖÜ ÄÖÜ ÄÖÜ ÄÖÜ"}]
    answer = local.chat.completions.create(model="first-model", messages=strange, max_tokens=2)
    assert (answer.model_extra or {})["ownlm"]["unlike_training"] is True
