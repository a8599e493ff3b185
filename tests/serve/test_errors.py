"""What goes wrong gets the OpenAI error object, the right status, and the field's name."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ownlm.runtime.errors import ContextOverflow, OwnLMError
from ownlm.serve.errors import describe
from server_types import Clock

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


def refused(direct: TestClient, path: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    body = {"model": "clock", **({"messages": HELLO} if "chat" in path else {"prompt": "a"}), **fields}
    answer = direct.post(path, json={name: value for name, value in body.items() if value != "LEFT AWAY"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return dict(error)


def test_an_unknown_model_lists_what_is_served(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="first-model", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "'first-model' is not served here. There is: clock, other." in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


@pytest.mark.parametrize("name", ["../clock", "/etc", "hf:org/name", "openai:http://127.0.0.1:1/v1#x", ""])
def test_no_path_or_address_can_be_asked_for(direct: TestClient, name: str) -> None:
    answer = direct.post("/v1/chat/completions", json={"model": name, "messages": HELLO})
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_names_both_lengths(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="clock", messages=[{"role": "user", "content": "word " * 60}], stream=stream
        )  # type: ignore[call-overload]
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert "60 tokens" in caught.value.message
    assert "holds 50" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="clock", prompt="word " * 60)
    assert caught.value.param == "prompt"


def test_unknown_parameters_are_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="clock", messages=HELLO, extra_body={"temprature": 1})
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "temprature")
    assert "Did you mean 'temperature'?" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 10}}, "logit_bias"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 33}, "n"),
        ({"n": True}, "n"),
        ({"seed": 10**30}, "seed"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": 5}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": "LEFT AWAY"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "user", "content": "x", "colour": "red"}]}, "messages[1].colour"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused_by_name(direct: TestClient, fields: dict[str, Any], param: str) -> None:
    body = {"model": "clock", "messages": HELLO, **fields}
    text = json.dumps({name: value for name, value in body.items() if value != "LEFT AWAY"})
    answer = direct.post("/v1/chat/completions", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert param.split("[")[0] in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"n": 20, "prompt": ["a", "b"]}, "n"),
    ],
)
def test_completions_refuse_by_name(direct: TestClient, fields: dict[str, Any], param: str) -> None:
    assert refused(direct, "/v1/completions", **fields)["param"] == param


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_bodies_that_are_no_request(direct: TestClient, body: bytes) -> None:
    answer = direct.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_half_a_surrogate_pair_is_no_text(direct: TestClient) -> None:
    body = b'{"model": "clock", "messages": [{"role": "user", "content": "\\ud800"}]}'
    answer = direct.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "surrogate" in answer.json()["error"]["message"]


def test_other_paths_and_methods(direct: TestClient) -> None:
    assert direct.get("/v1/nothing").status_code == 404
    assert direct.get("/v1/nothing").json()["error"]["message"] == "There is nothing at /v1/nothing."
    assert direct.get("/v1/chat/completions").status_code == 405
    assert direct.put("/v1/feedback").status_code == 405
    assert direct.get("/docs").status_code == 404, "it would load scripts from elsewhere"


def test_a_fault_of_the_model_is_told_without_its_details(direct: TestClient, clock: Clock) -> None:
    clock.fail_at = 0
    answer = direct.post("/v1/completions", json={"model": "clock", "prompt": "a"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text


def test_a_fault_in_mid_stream_ends_it_with_an_error(client: openai.OpenAI, clock: Clock) -> None:
    clock.fail_at = 2
    pieces = []
    with pytest.raises(openai.APIError, match="Something unexpected"):
        for chunk in client.completions.create(model="clock", prompt="a", stream=True):
            pieces += [chunk.choices[0].text]
    assert pieces == ["w0 ", "w1 "]


def test_describe() -> None:
    status, body = describe(ContextOverflow(60, 50), "/v1/completions")
    assert (status, body["error"]["param"]) == (400, "prompt")
    assert describe(OwnLMError("Once.")) == (
        400,
        {"error": {"message": "Once.", "type": "invalid_request_error", "param": None, "code": "invalid_request"}},
    )
    assert "boom" not in json.dumps(describe(ValueError("boom")))


def test_pages_at_the_root_do_not_answer_for_the_api(app: FastAPI) -> None:
    pages = FastAPI()

    @pages.get("/{path:path}")
    def page(path: str) -> str:
        return "a page"

    app.mount("/", pages)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        assert client.get("/anything").json() == "a page"
        assert client.get("/v1/nothing").json()["error"]["message"] == "There is nothing at /v1/nothing."
        assert client.get("/v1/chat/completions").status_code == 405
