"""The API as the real openai client sees it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from server_types import Clock

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
LONG: list[Any] = [{"role": "user", "content": "word " * 60}]


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["clock", "other"]
    assert client.models.retrieve("other").owned_by == "ownlm"


# ---- chat


def test_chat(client: openai.OpenAI, clock: Clock) -> None:
    answer = client.chat.completions.create(model="clock", messages=HELLO)
    assert answer.choices[0].message.content == "w0 w1 w2 w3 w4 "
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 5, 7)
    assert answer.model == "clock"
    assert clock.params[0].max_tokens == 50, "without a limit the context is"


def test_chat_streams(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="clock", messages=HELLO, stream=True, max_tokens=3))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "w0 w1 w2 "
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_counts_its_tokens_when_asked(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    *_, last = client.chat.completions.create(model="clock", messages=HELLO, stream=True, stream_options=options)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 5)


def test_every_sampling_parameter_arrives(client: openai.OpenAI, clock: Clock) -> None:
    client.chat.completions.create(
        model="clock", messages=HELLO, temperature=0.2, top_p=0.9, seed=7, stop=["a", "b"], presence_penalty=0.5,
        frequency_penalty=-0.5, max_completion_tokens=9,
        extra_body={"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1},
    )  # fmt: skip
    params = clock.params[0]
    assert (params.temperature, params.top_p, params.seed, params.stop) == (0.2, 0.9, 7, ("a", "b"))
    assert (params.presence_penalty, params.frequency_penalty, params.max_tokens) == (0.5, -0.5, 9)
    assert (params.top_k, params.min_p, params.repetition_penalty) == (3, 0.1, 1.1)


def test_stop(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="clock", messages=HELLO, stop="w2")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("w0 w1 ", "stop")


def test_several_choices_have_seeds_of_their_own(client: openai.OpenAI, clock: Clock) -> None:
    answer = client.chat.completions.create(model="clock", messages=HELLO, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert clock.params[0].seed == 7, "the first is the one that n=1 gives"
    assert len({params.seed for params in clock.params}) == 3
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 15)
    chunks = client.chat.completions.create(model="clock", messages=HELLO, n=2, stream=True)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "w0 w1 w2 w3 w4 ", 1: "w0 w1 w2 w3 w4 "}


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: openai.OpenAI, stream: bool) -> None:
    asked = {"model": "clock", "messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 2}
    answer: Any = client.chat.completions.create(**asked, stream=stream)  # type: ignore[call-overload]
    found = [choice.logprobs for part in (answer if stream else [answer]) for choice in part.choices]
    tokens = [entry for each in found if each for entry in each.content]
    assert [(entry.token, entry.logprob, bytes(entry.bytes)) for entry in tokens] == [
        ("w0 ", -0.1, b"w0 "), ("w1 ", -0.1, b"w1 "),
    ]  # fmt: skip
    assert [(top.token, top.logprob) for top in tokens[0].top_logprobs] == [("w0 ", -0.1), ("no", -2.0)]


def test_typed_text_parts_and_roles(client: openai.OpenAI, clock: Clock) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
    ]
    client.chat.completions.create(model="clock", messages=messages)
    assert [(each.role, each.text) for each in clock.asked[0]] == [("system", "Be brief."), ("user", "one two")]


def test_an_answer_can_be_sent_back(client: openai.OpenAI, clock: Clock) -> None:
    first = client.chat.completions.create(model="clock", messages=HELLO).choices[0].message
    again: Any = [*HELLO, first, {"role": "user", "content": "go on"}]
    client.chat.completions.create(model="clock", messages=again)
    assert [each.role for each in clock.asked[1]] == ["user", "assistant", "user"]


def test_harmless_fields_are_taken(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="clock", messages=HELLO, user="me", metadata={"a": "b"}, service_tier="auto", store=False, n=1,
        response_format={"type": "text"}, logit_bias={}, prompt_cache_key="k", tool_choice="none",
    )  # fmt: skip


def test_four_streams_at_once_all_finish_one_at_a_time(client: openai.OpenAI, clock: Clock) -> None:
    clock.pause = 0.01

    def ask(_: int) -> str:
        chunks = client.chat.completions.create(model="clock", messages=HELLO, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["w0 w1 w2 w3 w4 "] * 4
    assert clock.busiest == 1


# ---- what is said beside an answer


def test_a_prompt_unlike_the_training_data_is_told(client: openai.OpenAI, clock: Clock, http: httpx.Client) -> None:
    long: list[Any] = [{"role": "user", "content": "a question of more than forty bytes, this is one"}]
    answer = client.chat.completions.create(model="clock", messages=long)
    note: Any = (answer.model_extra or {})["ownlm"]
    assert note == {"model_id": "clock-id", "prompt_bits_per_byte": 1.5, "unlike_training": False}
    clock.bits_of_prompt = 2.5
    first, *rest = client.chat.completions.create(model="clock", messages=long, stream=True)
    assert (first.model_extra or {})["ownlm"]["unlike_training"] is True
    assert not any("ownlm" in (chunk.model_extra or {}) for chunk in rest)
    short = client.chat.completions.create(model="clock", messages=HELLO)
    assert (short.model_extra or {})["ownlm"] == {"model_id": "clock-id"}
    assert 'ownlm_prompts_unlike_training_total{model="clock"} 1.0' in http.get("/metrics").text


def test_health_and_metrics(client: openai.OpenAI, http: httpx.Client) -> None:
    client.chat.completions.create(model="clock", messages=HELLO)
    assert http.get("/health").json() == {"status": "ok", "models": {"clock": True, "other": False}}
    text = http.get("/metrics").text
    assert 'ownlm_completion_tokens_total{model="clock"} 5.0' in text
    assert 'ownlm_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in text


# ---- completions


def test_completions(client: openai.OpenAI, clock: Clock) -> None:
    answer = client.completions.create(model="clock", prompt="one two three")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("w0 w1 w2 w3 w4 ", "stop")
    assert clock.params[0].max_tokens == 16
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_completions_stream_with_echo(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.completions.create(model="clock", prompt="go ", echo=True, stream=True, stream_options=options)
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "go w0 w1 w2 w3 w4 "
    assert chunks[-1].usage is not None
    whole = client.completions.create(model="clock", prompt="go ", echo=True)
    assert whole.choices[0].text == "go w0 w1 w2 w3 w4 "


def test_many_prompts_with_choices(client: openai.OpenAI, clock: Clock) -> None:
    answer = client.completions.create(model="clock", prompt=["a", "b c"], n=2, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert clock.asked == ["a", "a", "b c", "b c"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 20)


@pytest.mark.parametrize(("prompt", "asked"), [([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])])
def test_prompts_of_tokens(client: openai.OpenAI, clock: Clock, prompt: Any, asked: Any) -> None:
    client.completions.create(model="clock", prompt=prompt)
    assert clock.asked == asked


def test_completion_logprobs(client: openai.OpenAI) -> None:
    found = client.completions.create(model="clock", prompt="a", logprobs=2, max_tokens=2).choices[0].logprobs
    assert found is not None
    assert (found.tokens, found.token_logprobs, found.text_offset) == (["w0 ", "w1 "], [-0.1, -0.1], [0, 3])
    assert found.top_logprobs is not None
    assert found.top_logprobs[0] == {"w0 ": -0.1, "no": -2.0}
    chunks = list(client.completions.create(model="clock", prompt="a", logprobs=1, max_tokens=2, stream=True))
    assert [lp.text_offset for chunk in chunks if (lp := chunk.choices[0].logprobs)] == [[0], [3]]
