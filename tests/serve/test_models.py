"""Which models can be asked for, and how a server follows a promotion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ownlm.runtime.errors import ModelNotFound, OwnLMError
from ownlm.serve.models import ModelSet
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace
from server_types import Clock


def make(workspace: Workspace, name: str, **settings: Any) -> Artifact:
    """A model artifact with nothing in it."""

    def build(job: Any) -> dict[str, Any]:
        (job.folder / "config.json").write_text("{}", "utf-8")
        return {"context": 512, "parameters": 1000, "heldout_bits_per_byte": 1.5}

    return workspace.make("model", name, build, settings=settings)[0]


class Opener:
    """Opens clocks named after the artifact, and counts."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.broken: set[str] = set()

    def __call__(self, name: str, workspace: Workspace) -> Clock:
        artifact = workspace.resolve(name, ("model",))
        if artifact.id in self.broken:
            raise OwnLMError("It is damaged.")
        self.opened.append(artifact.id)
        return Clock(artifact.id)


def test_without_names_the_aliases_of_models_are_served(workspace: Workspace) -> None:
    models = ModelSet([], workspace, Opener())
    assert models.names() == []
    with pytest.raises(ModelNotFound, match="no model yet; `ownlm demo` builds"):
        models.check("first-model")
    one = make(workspace, "one")
    corpus, _ = workspace.make("corpus", "texts", lambda job: {})
    workspace.point("a-base", one)
    workspace.point("first-model", one)
    workspace.point("texts", corpus)
    assert models.names() == ["first-model", "a-base"]
    with pytest.raises(ModelNotFound):
        models.open("one")


def test_only_given_names_are_reachable(workspace: Workspace) -> None:
    make(workspace, "one")
    other = make(workspace, "other", seed=1)
    models = ModelSet(["one"], workspace, Opener())
    models.check_all()
    for name in ("other", other.id, "../model/one", "hf:org/name"):
        with pytest.raises(ModelNotFound, match="There is: one."):
            models.open(name)


def test_a_misspelt_name_is_told_at_the_start(workspace: Workspace) -> None:
    make(workspace, "one")
    with pytest.raises(ModelNotFound, match="There is: one"):
        ModelSet(["onee"], workspace).check_all()
    ModelSet(["openai:http://127.0.0.1:1/v1#x", "hf:org/name"], workspace).check_all()


def test_a_model_is_opened_once_and_described_without(workspace: Workspace) -> None:
    one, opener = make(workspace, "one", stage="base"), Opener()
    workspace.point("first", one)
    models = ModelSet(["first", "one"], workspace, opener)
    told = models.describe("first")
    assert (told.artifact_id, told.stage, told.context, told.heldout_bits_per_byte) == (one.id, "base", 512, 1.5)
    assert told.created > 1_700_000_000
    assert not models.is_open("first")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(models.open, ["first", "one"] * 8))
    assert opener.opened == [one.id]
    assert len({id(model) for model in found}) == 1
    assert models.is_open("first")


def test_the_server_follows_a_promotion(workspace: Workspace) -> None:
    one, two, opener = make(workspace, "one"), make(workspace, "two", seed=2), Opener()
    workspace.point("first-model", one)
    models = ModelSet(["first-model"], workspace, opener)
    assert models.open("first-model").facts.name == one.id
    workspace.point("first-model", two)
    assert models.open("first-model").facts.name == two.id
    assert models.describe("first-model").artifact_id == two.id
    workspace.point("first-model", one)
    assert models.open("first-model").facts.name == one.id
    assert opener.opened == [one.id, two.id, one.id], "the model before was let go of"


def test_a_promoted_model_that_cannot_be_opened_changes_nothing(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, opener = make(workspace, "one"), make(workspace, "two", seed=2), Opener()
    workspace.point("first-model", one)
    models = ModelSet(["first-model"], workspace, opener)
    models.open("first-model")
    opener.broken.add(two.id)
    workspace.point("first-model", two)
    assert models.open("first-model").facts.name == one.id
    assert "could not follow its alias" in caplog.text
    opener.broken.add(one.id)
    with pytest.raises(OwnLMError, match="damaged"):
        ModelSet(["first-model"], workspace, opener).open("first-model")


def test_adapters_are_served_as_models_are(workspace: Workspace) -> None:
    artifact, _ = workspace.make("adapter", "polite", lambda job: {})
    workspace.point("polite", artifact)
    models = ModelSet([], workspace, lambda name, _: Clock(name))
    assert models.names() == ["polite"]
    named = ModelSet(["polite"], workspace, lambda name, _: Clock(name))
    named.check_all()
    assert named.describe("polite").artifact_id == artifact.id
    assert named.open("polite").facts.name == "polite"


def test_a_folder_of_peft_may_be_served(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", "utf-8")
    ModelSet([str(tmp_path)], workspace, Opener()).check_all()
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelNotFound):
        ModelSet([str(tmp_path)], workspace, Opener()).check_all()
