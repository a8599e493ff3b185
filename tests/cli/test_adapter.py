"""`ownlm adapter merge`."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from cli_types import Command
from ownlm.cli import verbs
from ownlm.cli.verbs import Verb
from ownlm.model.adapters import AdapterConfig, fresh_adapter, save_adapter
from ownlm.model.families.qwen3 import family
from ownlm.model.files import load_model, save_model


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verbs.VERBS, "adapter", Verb("adapter", "adapters"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    decoder = tiny.decoder()
    save_model(tmp_path / "base", decoder, tiny.tokenizer())
    config = AdapterConfig(rank=2, target_modules=("q_proj",), base=str(tmp_path / "base"))
    adapter = fresh_adapter(decoder, family, config, seed=0)
    for parameter in adapter.parameters():
        parameter.data += 0.1
    save_adapter(tmp_path / "adapter", adapter)
    return tmp_path


def test_merge(ownlm: Command, folders: Path) -> None:
    out = folders / "out"
    done = ownlm("adapter", "merge", folders / "adapter", "--out", out)
    assert done.code == 0, done.err
    assert "2 of its 24 tensors have the adapter in them" in done.out
    assert f"Next: ownlm chat {out}" in done.out
    assert load_model(out).config == tiny.config()
    again = ownlm(
        "adapter", "merge", folders / "adapter", "--base", folders / "base", "--out", folders / "two", "--json"
    )
    assert again.json["changed"] == 2
    assert again.json["base"] == str(folders / "base")
    assert (folders / "two" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_mistakes(ownlm: Command, folders: Path) -> None:
    done = ownlm("adapter", "merge", folders / "base", "--out", folders / "out")
    assert done.code == 2
    assert "is no adapter" in done.err
    done = ownlm("adapter", "merge", folders / "adapter", "--out", folders / "base")
    assert done.code == 2
    assert "exists already" in done.err
    done = ownlm("adapter", "merge", folders / "adapter", "--base", "nothing", "--out", folders / "out")
    assert done.code == 2
    assert "The base 'nothing' is no model" in done.err
    assert not (folders / "out").exists()
