"""A reader who leaves stops the model, waiting or not."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import openai

from server_types import Clock

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]


def until(condition: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def test_leaving_a_stream_cancels_within_a_step(client: openai.OpenAI, clock: Clock, http: httpx.Client) -> None:
    clock.words, clock.context, clock.pause = 1000, 2000, 0.02
    stream = client.chat.completions.create(model="clock", messages=HELLO, stream=True)
    for _ in range(3):
        next(stream)
    stream.close()
    left = clock.steps
    assert clock.closed.wait(5)
    assert clock.steps <= left + 5
    assert until(lambda: 'ownlm_cancelled_requests_total{model="clock"} 1.0' in http.get("/metrics").text)
    clock.words = 2
    assert client.completions.create(model="clock", prompt="a").choices[0].text == "w0 w1 ", "the turn was given back"


def test_leaving_before_a_whole_answer_cancels_too(url: str, clock: Clock) -> None:
    clock.words, clock.context, clock.pause = 1000, 2000, 0.02
    with httpx.Client(base_url=url, trust_env=False, timeout=0.3) as impatient:
        try:
            impatient.post("/v1/completions", json={"model": "clock", "prompt": "a", "max_tokens": 1000})
        except httpx.ReadTimeout:
            pass
    assert clock.closed.wait(5)
    assert clock.steps < 100


def test_leaving_the_line_never_reaches_the_model(client: openai.OpenAI, url: str, clock: Clock) -> None:
    clock.words, clock.pause = 20, 0.05
    first = threading.Thread(
        target=lambda: client.completions.create(model="clock", prompt="first", max_tokens=20), daemon=True
    )
    first.start()
    assert until(lambda: clock.asked)
    with httpx.Client(base_url=url, trust_env=False, timeout=0.2) as impatient:
        try:
            impatient.post("/v1/completions", json={"model": "clock", "prompt": "second"})
        except httpx.ReadTimeout:
            pass
    first.join(10)
    client.completions.create(model="clock", prompt="third", max_tokens=1)
    assert clock.asked == ["first", "third"]
