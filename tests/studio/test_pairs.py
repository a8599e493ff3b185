"""Blind pairs and what becomes of the choices."""

import json
from pathlib import Path

import pytest

from ownlm.data.message import Message
from ownlm.store.feedback import Feedback
from ownlm.store.workspace import Workspace
from ownlm.studio.pairs import Pair, Sampled, feedback, preferences, prompts_for, tally, write_preferences
from studio_types import STARTERS, make_models

PROMPT = (Message.of("user", "hello"),)
A, B = Sampled("old", "first", {"seed": 1}), Sampled("new", "second", {"seed": 2})


@pytest.mark.parametrize(
    ("order", "choice", "verdict"),
    [("ab", "left", "a"), ("ab", "right", "b"), ("ba", "left", "b"), ("ba", "right", "a"), ("ba", "tie", "tie"),
     ("ab", "both_bad", "both_bad"), ("ba", "skip", "skip")],
)  # fmt: skip
def test_a_choice_of_a_place_names_the_answer(order: str, choice: str, verdict: str) -> None:
    pair = Pair(PROMPT, A, B, order)  # type: ignore[arg-type]
    given = feedback(pair, choice, "s", 2.345)
    assert given.verdict == verdict
    assert given.order_shown == order
    assert given.seconds_taken == 2.35 or given.seconds_taken == 2.34
    assert pair.shown[0] is (A if order == "ab" else B)


def choice(verdict: str, first: str = "first", second: str = "second") -> Feedback:
    a, b = ({"model_id": name, "text": text} for name, text in (("old", first), ("new", second)))
    return Feedback("pair", "s", [message.to_json() for message in PROMPT], [a, b], verdict)


def test_only_choices_between_two_answers_teach(tmp_path: Path) -> None:
    choices = [choice("a"), choice("b"), choice("tie"), choice("both_bad"), choice("skip"), choice("a", "same", "same")]
    path = tmp_path / "deep" / "pairs.jsonl"
    assert write_preferences(choices, path) == 2
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(line["chosen"], line["rejected"]) for line in lines] == [("first", "second"), ("second", "first")]
    assert Message.from_json(lines[0]["prompt"][0]).text == "hello"
    assert list(preferences([])) == []


def test_a_vote_is_told_by_its_interval() -> None:
    assert tally([choice("b")] * 3 + [choice("a"), choice("tie")], "new") == (3, 4, "too few to tell")
    assert tally([choice("b")] * 12, "new") == (12, 12, "better")
    assert tally([choice("a")] * 12, "new") == (0, 12, "worse")
    assert tally([choice("tie")], "new") == (0, 0, "too few to tell")


def test_prompts_come_from_the_folder_or_from_the_starters(workspace: Workspace) -> None:
    model = make_models(workspace)["aligned"]
    assert [prompt[0].text for prompt in prompts_for(model, STARTERS)] == STARTERS
    broken = [[{"role": "user", "content": "good"}], [{"role": "nobody"}], "text", [], [5], [{"role": "user",
              "content": [{"type": "image", "url": "x"}]}]]  # fmt: skip
    (model.path / "pair_prompts.json").write_text(json.dumps(broken), "utf-8")
    assert [prompt[0].text for prompt in prompts_for(model, STARTERS)] == ["good"]
