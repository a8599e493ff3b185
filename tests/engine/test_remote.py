"""A remote model, asked over HTTP: our own server on the other side, and servers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ownlm.data.message import ImagePart, Message
from ownlm.engine.remote import RemoteModel
from ownlm.engine.remote_protocol import RemoteError, body_of, events_of, lines_of
from ownlm.engine.request import Finished, LanguageModel, SamplingParams, TextDelta, Usage
from ownlm.runtime.errors import OwnLMError, UnsupportedParameter
from ownlm.runtime.seeds import derive_seed
from ownlm.serve.app import create_app
from ownlm.serve.models import ModelSet
from ownlm.serve.run import free_port
from ownlm.store.workspace import Workspace
from server_types import Clock, serving

HELLO = [Message.of("user", "hello there")]


@pytest.fixture
def clock() -> Clock:
    """The model on the other side."""
    return Clock()


@pytest.fixture
def remote(clock: Clock, workspace: Workspace) -> Iterator[RemoteModel]:
    """The same model, from here."""
    with serving(create_app(ModelSet(["clock"], workspace, lambda name, _: clock), workspace)) as url:
        model = RemoteModel.from_name(f"openai:{url}/v1#clock")
        yield model
        model.close()


@contextmanager
def endpoint(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these answers in turn, and remembers the requests' headers."""
    left, asked = list(answers), list[dict[str, str]]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(dict(self.headers))
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


# ---- against our own server


def test_it_is_a_language_model(remote: RemoteModel) -> None:
    assert isinstance(remote, LanguageModel)
    assert remote.facts.name == "clock"
    assert remote.facts.context == 0, "nothing is known before the model is opened there"


def test_chat(remote: RemoteModel, clock: Clock) -> None:
    *deltas, end = remote.stream(HELLO, SamplingParams(max_tokens=3, seed=7, stop=("zzz",), top_p=0.5))
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["seed7 ", "w1 ", "w2 "]
    assert end == Finished("length", Usage(2, 3))
    assert [(each.role, each.text) for each in clock.asked[0]] == [("user", "hello there")]
    params = clock.params[0]
    assert (params.max_tokens, params.seed, params.stop, params.top_p) == (3, 7, ("zzz",), 0.5)


@pytest.mark.parametrize("prompt", ["one two", [1, 2]])
def test_plain_text_and_tokens(remote: RemoteModel, clock: Clock, prompt: str | list[int]) -> None:
    *_, end = remote.stream(prompt, SamplingParams())
    assert end == Finished("stop", Usage(2, 5))
    assert clock.asked == [prompt]


@pytest.mark.parametrize("prompt", ["one two", HELLO])
def test_logprobs(remote: RemoteModel, prompt: str | list[Message]) -> None:
    first, *_ = remote.stream(prompt, SamplingParams(logprobs=2))
    assert isinstance(first, TextDelta)
    (found,) = first.logprobs
    assert (found.token, found.token_bytes, found.logprob) == ("w0 ", b"w0 ", -0.1)
    assert found.top == (("w0 ", b"w0 ", -0.1), ("no", b"no", -2.0))


def test_generate_derives_seeds_and_keeps_the_order(remote: RemoteModel) -> None:
    prompts = [f"{'a ' * count}" for count in range(1, 7)]
    answers = remote.generate(prompts, SamplingParams(seed=5))
    assert [answer.usage.prompt_tokens for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert [answer.text.split()[0] for answer in answers] == [f"seed{derive_seed(5, index)}" for index in range(6)]
    assert remote.generate([], SamplingParams()) == []


def test_closing_the_stream_stops_the_model_over_there(remote: RemoteModel, clock: Clock) -> None:
    clock.words, clock.context, clock.pause = 1000, 2000, 0.01
    events = remote.stream("a", SamplingParams(max_tokens=1000))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert clock.closed.wait(5)
    assert clock.steps < 100


def test_what_it_refuses_is_told(remote: RemoteModel) -> None:
    with pytest.raises(RemoteError, match="60 tokens.*holds 50") as caught:
        list(remote.stream("word " * 60, SamplingParams()))
    assert (caught.value.code, caught.value.http_status) == ("context_length_exceeded", 400)
    stranger = RemoteModel(remote.base_url, "parrot")
    with pytest.raises(RemoteError, match="does not serve 'parrot'.*There is: clock"):
        stranger.generate(["a"], SamplingParams())


def test_an_error_in_mid_stream(remote: RemoteModel, clock: Clock) -> None:
    clock.fail_at = 2
    events = remote.stream("a", SamplingParams())
    assert isinstance(next(events), TextDelta)
    with pytest.raises(RemoteError, match="broke the answer off"):
        list(events)


# ---- what cannot be asked for


@pytest.mark.parametrize(("name", "value"), [("top_k", 5), ("min_p", 0.1), ("repetition_penalty", 1.2)])
def test_parameters_that_the_protocol_lacks(name: str, value: float) -> None:
    model = RemoteModel("http://127.0.0.1:1/v1", "x")
    with pytest.raises(UnsupportedParameter) as caught:
        model.stream("a", SamplingParams(**{name: value}))  # type: ignore[arg-type]
    assert caught.value.name == name


def test_scores_counts_and_images() -> None:
    model = RemoteModel("http://127.0.0.1:1/v1", "x")
    for call in (lambda: model.score(["a"]), lambda: model.count_tokens("a")):
        with pytest.raises(UnsupportedParameter):
            call()
    with pytest.raises(UnsupportedParameter, match="Only text"):
        model.stream([Message("user", (ImagePart("x.png"),))], SamplingParams())


def test_openai_itself_wants_another_name_for_the_limit() -> None:
    assert body_of("m", HELLO, SamplingParams(), "api.openai.com")["max_completion_tokens"] == 256
    assert body_of("m", HELLO, SamplingParams(), "elsewhere")["max_tokens"] == 256
    assert body_of("m", "text", SamplingParams(), "api.openai.com")["max_tokens"] == 256
    assert set(body_of("m", "text", SamplingParams())) == {
        "model", "stream", "stream_options", "max_tokens", "temperature", "prompt",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["openai:", "openai:http://x/v1", "openai:#m", "openai:ftp://x#m", "openai:http://x:port/v1#m", "openai:x#m"],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(OwnLMError, match="openai:BASE_URL#MODEL"):
        RemoteModel.from_name(name)


# ---- keys


def key_of(model: RemoteModel) -> str | None:
    return model._client.headers.get("authorization")


def test_keys_go_only_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWNLM_REMOTE_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert key_of(RemoteModel.from_name("openai:https://api.openai.com/v1#m")) == "Bearer sk-secret"
    assert key_of(RemoteModel.from_name("openai:http://127.0.0.1:1/v1#m")) == "Bearer sk-secret"
    assert key_of(RemoteModel.from_name("openai:http://far.example/v1#m")) is None, "not in the clear"
    monkeypatch.setenv("OWNLM_REMOTE_KEY", "other-secret")
    model = RemoteModel.from_name("openai:http://far.example/v1#m")
    assert key_of(model) == "Bearer other-secret"
    assert "secret" not in repr(model)
    with pytest.raises(OwnLMError, match="must hold no password") as caught:
        RemoteModel.from_name("openai:http://me:hunter2@far.example/v1#m")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(OwnLMError) as caught:
        RemoteModel.from_name("openai:http://me:hunter2@far.example/v1")
    assert "hunter2" not in str(caught.value)


def test_a_refused_key_is_not_repeated() -> None:
    with endpoint((401, {}, b'{"error": {"message": "no"}}')) as (url, asked):
        model = RemoteModel(url, "m", key="sk-secret")
        with pytest.raises(RemoteError, match="refuses the key") as caught:
            list(model.stream("a", SamplingParams()))
    assert asked[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)


# ---- endpoints that misbehave


def test_nobody_there() -> None:
    model = RemoteModel(f"http://127.0.0.1:{free_port()}/v1", "m")
    with pytest.raises(RemoteError, match="cannot be reached.*is it running"):
        list(model.stream("a", SamplingParams()))
    assert model.facts.context == 0


def test_a_busy_endpoint_is_asked_again() -> None:
    good = b'data: {"choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    with endpoint((503, {"Retry-After": "0"}, b""), (429, {"Retry-After": "0"}, b""), (200, {}, good)) as (url, asked):
        (answer,) = RemoteModel(url, "m").generate(["a"], SamplingParams())
    assert (answer.text, answer.usage, len(asked)) == ("yes", Usage(0, 1), 3)
    with endpoint((503, {"Retry-After": "0"}, b"full")) as (url, asked):
        with pytest.raises(RemoteError, match="status 503: full"):
            RemoteModel(url, "m").generate(["a"], SamplingParams())
        assert len(asked) == 3


@pytest.mark.parametrize(
    ("status", "headers", "body", "told"),
    [
        (200, {}, b"<html>hello</html>", "cut an answer off"),
        (200, {}, b"data: {nonsense\n\n", "something else than the OpenAI protocol"),
        (200, {}, b'data: {"choices": [{"text": "half"}]}\n\n', "cut an answer off"),
        (200, {"Content-Length": "1000"}, b'data: {"choices": [{"text": "half"}]}\n\n', "broke off"),
        (302, {"Location": "http://elsewhere/"}, b"", "has moved to http://elsewhere/"),
        (500, {}, b"<html>oops</html>", "status 500: <html>oops"),
        (404, {}, b"[]", "does not serve 'm'"),
    ],
)
def test_answers_that_are_none(status: int, headers: dict[str, str], body: bytes, told: str) -> None:
    with endpoint((status, headers, body)) as (url, _), pytest.raises(RemoteError, match=told):
        list(RemoteModel(url, "m").stream("a", SamplingParams()))


def test_events_of_other_servers() -> None:
    """Comments, a null delta, usage beside the end, a trailing chunk without choices."""
    lines = [
        ": ping", "", 'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}}]}',
        'data: {"choices": [{"index": 0, "delta": {"content": "é"}, "logprobs": null}]}',
        'data:{"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}], "usage": null}',
        'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}', "data: [DONE]",
    ]  # fmt: skip
    assert list(events_of(lines, "x")) == [TextDelta("é"), Finished("cancelled", Usage(3, 1))]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "stop"), ("tool_calls", "stop"), ("length", "length"), ("content_filter", "cancelled")],
)
def test_reasons(theirs: str, ours: str) -> None:
    line = f'data: {{"choices": [{{"text": "a", "finish_reason": "{theirs}"}}]}}'
    assert list(events_of([line], "x"))[-1] == Finished(ours, Usage(0, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_of_pieces(size: int) -> None:
    text = "one\r\n\n: two\u2028\u2029\x85\x0b\x0c\x1c three\nlast\r"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert list(lines_of(pieces)) == ["one", "", ": two\u2028\u2029\x85\x0b\x0c\x1c three", "last"]
    assert list(lines_of([])) == []


def test_text_with_the_line_ends_of_unicode() -> None:
    """JSON need not escape them, and many servers do not."""
    body = 'data: {"choices": [{"text": "a\u2028b\u2029c\x85d", "finish_reason": "stop"}]}\r\n\r\ndata: [DONE]\r\n'
    with endpoint((200, {"Content-Type": "text/event-stream"}, body.encode())) as (url, _):
        (answer,) = RemoteModel(url, "m").generate(["a"], SamplingParams())
    assert answer.text == "a\u2028b\u2029c\x85d"


@pytest.mark.parametrize(
    "chunk",
    [
        "[]", "7", "null", '{"choices": 7}', '{"choices": ["text"]}', '{"choices": [null]}', '{"choices": {"a": 1}}',
        '{"choices": [{"delta": "text"}]}', '{"choices": [{"delta": {"content": 5}}]}', '{"choices": [{"text": [1]}]}',
        '{"choices": [{"text": "a", "finish_reason": ["stop"]}]}',
        '{"choices": [{"text": "a", "logprobs": {"tokens": [1], "token_logprobs": [0]}}]}',
        '{"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": ["x"]}}]}',
        '{"choices": [{"delta": {}, "logprobs": {"content": [{"token": "a"}]}}]}',
        '{"choices": [{"delta": {}, "logprobs": {"content": [{"token": "a", "bytes": [999], "logprob": 0}]}}]}',
        '{"choices": [{"delta": {}, "logprobs": {"content": [{"token": 1, "logprob": 0}]}}]}',
        '{"choices": [], "usage": {"prompt_tokens": "many"}}', '{"choices": [], "usage": {"prompt_tokens": Infinity}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_chunks_that_make_no_sense(chunk: str) -> None:
    with pytest.raises(RemoteError, match="something else than the OpenAI protocol"):
        list(events_of([f"data: {chunk}"], "x"))
