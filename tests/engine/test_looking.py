"""A look at models of the hub, which is stood in for here: config and headers are fetched, weights never."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

import tiny
from ownlm.engine.looking import is_model, look
from ownlm.model.anatomy import anatomy_of_folder
from ownlm.model.files import save_model
from ownlm.model.folder import WEIGHTS
from ownlm.runtime.errors import ModelNotFound, OwnLMError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny.decoder(), tiny.tokenizer())
    return tmp_path / "model"


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tiny model as `org/tiny`; gives what was asked for."""
    asked: list[str] = []

    def fetch(repository: str, name: str) -> str:
        asked.append(name)
        return str(folder / name)

    def metadata(repository: str) -> Any:
        asked.append("headers")
        tensors = {
            name: SimpleNamespace(dtype="F32", shape=list(each.shape))
            for name, each in load_file(folder / WEIGHTS).items()
        }
        return SimpleNamespace(files_metadata={WEIGHTS: SimpleNamespace(tensors=tensors)})

    def uncached(repository: str, **options: object) -> str:
        assert options == {"local_files_only": True}
        raise FileNotFoundError("nothing of it is here")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.snapshot_download", uncached)
    return asked


def test_what_a_model_is(folder: Path, tmp_path: Path) -> None:
    assert is_model(str(folder)) and is_model("hf:org/name")
    assert not is_model(str(tmp_path)) and not is_model("first-model")


def test_of_the_hub_only_config_and_headers_are_fetched(folder: Path, hub: list[str]) -> None:
    assert look("hf:org/tiny", 10) == anatomy_of_folder(folder, 10) == look(str(folder), 10)
    assert hub == ["config.json", "headers"]


def test_what_is_in_the_cache_is_not_fetched(folder: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repository, **options: str(folder))
    assert look("hf:org/tiny", 10) == anatomy_of_folder(folder, 10)
    assert hub == []
    (folder / WEIGHTS).unlink()  # a part of the model only
    with pytest.raises(ModelNotFound):
        look("hf:org/tiny", 10)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConnectionError("no route"), ModelNotFound, "hf:org/tiny cannot be had .* check the name and the network"),
        ("NotASafetensorsRepoError", OwnLMError, r"hf:org/tiny has no \.safetensors file"),
        ("EntryNotFoundError", OwnLMError, "hf:org/tiny is no model that is read here"),
    ],
)
def test_hubs_that_do_not_have_it(
    error: Exception | str, kind: type[Exception], message: str, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.errors

    raised = getattr(huggingface_hub.errors, error)("nothing") if isinstance(error, str) else error

    def refuse(repository: str) -> None:
        raise raised

    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", refuse)
    with pytest.raises(kind, match=message):
        look("hf:org/tiny", 10)
