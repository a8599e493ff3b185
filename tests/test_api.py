"""What a program can do: `ownlm.load(...)` and its methods."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import ownlm
from cli_types import Parrot
from ownlm.api import Model, messages, sampling_params
from ownlm.data.message import Message
from ownlm.runtime.errors import ContextOverflow, OwnLMError, UnsupportedParameter


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    module = ModuleType("ownlm.engine.open")
    module.open_model = lambda name, workspace, weights: Parrot()  # type: ignore[attr-defined]
    module.Weights = lambda precision, quantize: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ownlm.engine.open", module)
    return ownlm.load("parrot")


def test_complete_chat_stream_score(model: Model) -> None:
    assert model.complete("one two three", temperature=0, max_tokens=2) == "three two"
    assert model.chat("one two") == "two one"
    assert model.chat([{"role": "user", "content": "a b"}, Message.of("user", "c d")]) == "d c"
    assert list(model.stream("one two")) == ["two", " one"]
    assert list(model.stream([{"role": "user", "content": "a b"}])) == ["b", " a"]
    assert model.score("abc").bits_per_byte == pytest.approx(1 / 0.6931471805599453)
    assert model.facts.name == "parrot"


def test_mistakes_are_told(model: Model) -> None:
    with pytest.raises(UnsupportedParameter, match="'temprature'. Did you mean 'temperature'"):
        model.complete("x", temprature=0)
    with pytest.raises(UnsupportedParameter, match="temperature"):
        model.complete("x", temperature=-1)
    with pytest.raises(ContextOverflow):
        model.complete("word " * 65)
    with pytest.raises(OwnLMError, match="Message 1 cannot be read: role must be one of"):
        model.chat([{"role": "user", "content": "x"}, {"role": "robot", "content": "y"}])


def test_stop_may_be_one_string() -> None:
    assert sampling_params({"stop": "x"}).stop == ("x",)
    assert sampling_params({"stop": ["x", "y"]}).stop == ("x", "y")
    assert sampling_params({"stop": None}).stop == ()


def test_a_question_is_one_message() -> None:
    assert messages("hello") == [Message.of("user", "hello")]


def test_the_package_lists_and_finds_its_names() -> None:
    assert set(dir(ownlm)) >= {"load", "run", "evaluate", "Model", "__version__"}
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = ownlm.lode
