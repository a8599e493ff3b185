"""Verdicts over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from ownlm.store.feedback import open_feedback
from ownlm.store.workspace import Workspace

THUMB: dict[str, Any] = {
    "kind": "thumb", "prompt": "What?", "verdict": "up", "session": "s1",
    "answers": [{"model": "clock", "text": "That.", "sampling": {"temperature": 0.7, "stop": ["x"], "seed": None}}],
}  # fmt: skip
PAIR: dict[str, Any] = {
    "kind": "pair", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}],
    "answers": [{"model": "clock", "text": "A", "model_id": "abc"}, {"model": "other", "text": "B"}],
    "verdict": "b", "order_shown": "ba", "strength": 2, "seconds_taken": 3.5, "annotator": "me",
}  # fmt: skip


def test_verdicts_are_kept(direct: TestClient, workspace: Workspace) -> None:
    first, second = direct.post("/v1/feedback", json=THUMB), direct.post("/v1/feedback", json=PAIR)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json()["id"] > first.json()["id"]
    store = open_feedback(workspace)
    (thumb,), (pair,) = store.thumbs(), store.pairs()
    assert (thumb.session, thumb.verdict) == ("s1", "up")
    assert thumb.prompt == [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    assert thumb.answers[0]["sampling"] == {"temperature": 0.7, "stop": ["x"], "seed": None}
    assert [each["model_id"] for each in pair.answers] == ["abc", "other"]
    assert (pair.verdict, pair.order_shown, pair.strength, pair.seconds_taken) == ("b", "ba", 2, 3.5)
    assert 'ownlm_feedback_total{kind="pair"} 1.0' in direct.get("/metrics").text


@pytest.mark.parametrize(
    ("base", "fields", "status", "param"),
    [
        (THUMB, {"answers": [{"model": "nobody", "text": "x"}]}, 404, "model"),
        (THUMB, {"answers": [{"model": "nobody", "model_id": "abc", "text": "x"}]}, 404, "model"),
        (THUMB, {"verdict": "tie"}, 400, "verdict"),
        (PAIR, {"verdict": "up"}, 400, "verdict"),
        (PAIR, {"answers": PAIR["answers"][:1]}, 400, "answers"),
        (PAIR, {"order_shown": "ab "}, 400, "order_shown"),
        (PAIR, {"strength": 9}, 400, "strength"),
        (PAIR, {"seconds_taken": -1}, 400, "seconds_taken"),
        (THUMB, {"prompt": []}, 400, "prompt"),
        (THUMB, {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0]"),
        (THUMB, {"colour": "red"}, 400, "colour"),
        (THUMB, {"session": "x" * 201}, 400, "session"),
    ],
)
def test_nonsense_is_refused_and_not_kept(
    direct: TestClient, workspace: Workspace, base: dict[str, Any], fields: dict[str, Any], status: int, param: str
) -> None:
    answer = direct.post("/v1/feedback", json={**base, **fields})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert open_feedback(workspace).count() == 0
