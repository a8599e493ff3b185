"""A command called in this process, and a model behind a name."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from cli_types import Command, Done, Parrot
from ownlm.cli.main import main
from ownlm.runtime.errors import ModelNotFound


@pytest.fixture
def ownlm(capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls `ownlm ARGUMENTS...`."""

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    """The model that the name "parrot" opens, and the only one there is."""
    model = Parrot()

    def open_model(name: str, workspace: object, weights: object) -> Parrot:
        if name != "parrot":
            raise ModelNotFound(f"The model '{name}' is not known. There is: parrot.")
        return model

    module = ModuleType("ownlm.engine.open")
    module.open_model = open_model  # type: ignore[attr-defined]
    module.Weights = lambda precision, quantize: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ownlm.engine.open", module)
    return model
