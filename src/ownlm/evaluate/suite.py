"""A suite: a YAML file of cases, each a prompt and what a good answer has.

    name: first-steps
    about: What this suite asks, in one line.
    sampling: {max_tokens: 64, temperature: 0.0, seed: 0}   # any field of SamplingParams; these are the defaults
    cases:
      - id: add                                # a name of your choice; else the case's number
        prompt: "def add(a, b):"               # text to continue, or `messages` for a conversation
        score: {contains: return, max_lines: 4}
        tags: [code]
      - messages: [{role: user, content: "What does json.loads do?"}]
        score: {regex: "(?i)json", finished: true}

A case passes when all its scorers do (`ownlm.score.text` lists them).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownlm.data.message import Message
from ownlm.engine.request import SamplingParams
from ownlm.evaluate.yaml_lines import Source, Step, read_yaml
from ownlm.runtime.errors import OwnLMError
from ownlm.score.text import find_scorer

DEFAULTS: dict[str, Any] = {"max_tokens": 128, "temperature": 0.0, "seed": 0}
_CASE_KEYS = {"id", "prompt", "messages", "score", "tags"}
_SUITE_KEYS = {"name", "about", "sampling", "cases"}
_WHOLE = {"max_tokens", "top_k", "logprobs", "seed"}
_MAY_BE_ABSENT = {"logprobs", "seed"}
_WANTED = {
    field.name: "a whole number" if field.name in _WHOLE else "a number" for field in dataclasses.fields(SamplingParams)
} | {"stop": "a text or a list of texts"}
"""Sampling parameter -> what a suite may give for it, in words."""


@dataclass(frozen=True)
class Case:
    """One question. `prompt` is text to continue or a conversation; `score` maps scorers to their targets."""

    id: str
    prompt: str | tuple[Message, ...]
    score: dict[str, Any]
    tags: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The prompt as one text for people."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(f"{message.role}: {message.text}" for message in self.prompt)


@dataclass(frozen=True)
class Suite:
    """Cases with the sampling parameters that all are asked with."""

    name: str
    cases: tuple[Case, ...]
    sampling: SamplingParams
    about: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything that decides the outcome: part of an evaluation's settings, so that a changed suite runs anew."""
        cases = [
            {
                "id": case.id,
                "prompt": case.prompt if isinstance(case.prompt, str) else [turn.to_json() for turn in case.prompt],
                "score": case.score,
                "tags": list(case.tags),
            }
            for case in self.cases
        ]
        return {"name": self.name, "cases": cases, "sampling": dataclasses.asdict(self.sampling)}


def read_suite(path: Path) -> Suite:
    """Reads and checks a suite.

    Raises:
        OwnLMError: naming file and line, what is wrong there, and the nearest valid key or scorer.
    """
    source = read_yaml(path)
    source.check_keys((), _SUITE_KEYS)
    cases = source.data.get("cases")
    if not isinstance(cases, list) or not cases:
        raise source.error(("cases",), "a suite needs `cases`, a list with at least one case.")
    read = [_case(source, ("cases", index)) for index in range(len(cases))]
    ids = [case.id for case in read]
    for index, identifier in enumerate(ids):
        if identifier in ids[:index]:
            raise source.error(("cases", index, "id"), f"the id '{identifier}' is taken by an earlier case.")
    name = source.data.get("name", path.stem)
    about = source.data.get("about", "")
    if not isinstance(name, str) or not name:
        raise source.error(("name",), "the name must be a text.")
    return Suite(name, tuple(read), _sampling(source), str(about))


def _sampling(source: Source) -> SamplingParams:
    given = source.data.get("sampling", {})
    if "sampling" in source.data:
        source.check_keys(("sampling",), _WANTED)
    for name, value in given.items():
        if not _fits(name, value):
            raise source.error(("sampling", name), f"{name} takes {_WANTED[name]}, not {value!r}.")
    chosen = {**DEFAULTS, **given}
    if "stop" in chosen:
        chosen["stop"] = (chosen["stop"],) if isinstance(chosen["stop"], str) else tuple(chosen["stop"])
    try:
        return SamplingParams(**chosen)
    except OwnLMError as error:
        field = getattr(error, "name", "")
        raise source.error(("sampling", field), str(error)) from error


def _fits(name: str, value: Any) -> bool:
    """Whether a value has the type of this sampling parameter; YAML's true and false are no numbers."""
    if name == "stop":
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value))
    if value is None:
        return name in _MAY_BE_ABSENT
    return isinstance(value, int if name in _WHOLE else int | float) and not isinstance(value, bool)


def _case(source: Source, at: tuple[Step, ...]) -> Case:
    source.check_keys(at, _CASE_KEYS)
    data = source.at(at)
    if ("prompt" in data) == ("messages" in data):
        raise source.error(at, "a case needs either `prompt` or `messages`.")
    tags = data.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise source.error((*at, "tags"), "tags must be a list of texts.")
    prompt = _text(source, (*at, "prompt")) if "prompt" in data else _messages(source, (*at, "messages"))
    return Case(str(data.get("id", int(at[-1]) + 1)), prompt, _score(source, at), tuple(tags))


def _text(source: Source, at: tuple[Step, ...]) -> str:
    value = source.at(at)
    if not isinstance(value, str) or not value:
        raise source.error(at, "a prompt must be a text that is not empty.")
    return value


def _messages(source: Source, at: tuple[Step, ...]) -> tuple[Message, ...]:
    turns = source.at(at)
    if not isinstance(turns, list) or not turns:
        raise source.error(at, "messages must be a list of turns, each with `role` and `content`.")
    read = []
    for index, turn in enumerate(turns):
        source.check_keys((*at, index), ("role", "content"))
        try:
            read.append(Message.from_json(turn))
        except ValueError as error:
            raise source.error((*at, index), f"{error}.") from error
    return tuple(read)


def _score(source: Source, at: tuple[Step, ...]) -> dict[str, Any]:
    targets = source.at(at).get("score")
    if not isinstance(targets, dict) or not targets:
        raise source.error((*at, "score"), "a case needs `score`, a mapping of scorers to their targets.")
    for name, target in targets.items():
        try:
            complaint = find_scorer(str(name)).complaint(target)
        except OwnLMError as error:
            raise source.error((*at, "score", name), str(error)) from error
        if complaint:
            raise source.error((*at, "score", name), f"the scorer '{name}' {complaint}.")
    return dict(targets)
