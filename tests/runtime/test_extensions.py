"""Extensions are found by name; a broken one is named."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from ownlm.runtime import extensions
from ownlm.runtime.extensions import ExtensionError, extension_names, load_extension, load_extensions


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "ownlm.scorers"
    known = [
        EntryPoint("joined", "os.path:join", group),
        EntryPoint("broken", "no_such_module_here:thing", group),
    ]
    monkeypatch.setattr(extensions, "entry_points", lambda group: [each for each in known if each.group == group])


@pytest.mark.usefixtures("points")
def test_names_import_nothing_and_one_broken_extension_harms_no_other() -> None:
    assert extension_names("ownlm.scorers") == ["broken", "joined"]
    assert callable(load_extension("ownlm.scorers", "joined"))


@pytest.mark.usefixtures("points")
def test_a_broken_extension_is_named() -> None:
    with pytest.raises(ExtensionError, match="'broken' .*no_such_module_here"):
        load_extensions("ownlm.scorers")


@pytest.mark.usefixtures("points")
def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(ExtensionError, match="Did you mean 'joined'"):
        load_extension("ownlm.scorers", "joint")
    with pytest.raises(ExtensionError, match="There is: nothing"):
        load_extension("ownlm.kits", "python")


def test_this_package_registers_its_own_parts() -> None:
    assert "qwen3" in extension_names("ownlm.families")
    assert set(extension_names("ownlm.objectives")) >= {"pretrain", "sft", "dpo"}
    assert set(extension_names("ownlm.kits")) >= {"python", "prose"}
