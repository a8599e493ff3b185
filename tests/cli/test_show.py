"""`ownlm show MODEL`: its parts in a table, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import family_cases
import tiny
from cli_types import Command
from family_cases import BY_NAME
from ownlm.model.files import save_model
from ownlm.store.workspace import Build, Workspace

PARTS = ["embeddings", "attention", "feed-forward", "norms", "head"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "tiny", tiny.decoder(), tiny.tokenizer())
    return tmp_path / "tiny"


def test_a_model_folder(ownlm: Command, folder: Path) -> None:
    done = ownlm("show", folder)
    assert done.code == 0, done.err
    assert "parameters in 2 layers of width 32 (qwen3), for texts of up to 64 tokens" in done.out
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in [*PARTS, "all"]] == [*PARTS, "all"]
    assert "here for token 64 of a text" in done.out and "stored as float32" in done.out
    assert f"Next: ownlm chat {folder}" in done.out


def test_for_programs(ownlm: Command, folder: Path) -> None:
    found = ownlm("show", folder, "--json", "--length", "10").json["anatomy"]
    count = sum(parameter.numel() for parameter in tiny.decoder().parameters())
    assert (found["parameters"], found["bytes"], found["length"]) == (count, 4 * count, 10)
    assert [part["name"] for part in found["parts"]] == PARTS
    assert sum(part["parameters"] for part in found["parts"]) == count
    assert sum(part["flops"] for part in found["parts"]) == found["flops_per_token"]


@pytest.mark.parametrize("name", ["mixtral", "gemma 2", "gpt 2"])
def test_it_fits_a_terminal_of_eighty_columns(
    name: str, ownlm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich import console

    monkeypatch.chdir(tmp_path)
    family_cases.save(family_cases.make(BY_NAME[name], torch.bfloat16), tmp_path / "it")
    made = console.Console
    monkeypatch.setattr(console, "Console", lambda **options: made(**{**options, "width": 80}))
    done = ownlm("show", "it")
    assert done.code == 0, done.err
    table = done.out[done.out.index("part ") : done.out.index("Next:")]
    assert all(len(line.rstrip()) <= 80 for line in table.splitlines())
    assert "stored as bfloat16" in table
    assert ("parameters work on a token" in table) == (name == "mixtral")


def test_an_artifact_has_both(ownlm: Command, workspace: Workspace) -> None:
    def build(job: Build) -> dict[str, Any]:
        save_model(job.folder, tiny.decoder(), tiny.tokenizer())
        return {"heldout_bits_per_byte": 1.5}

    artifact = workspace.make("model", "mine", build)[0]
    done = ownlm("show", "mine")
    assert done.code == 0, done.err
    assert "What it is made of" in done.out and "feed-forward" in done.out
    assert "heldout_bits_per_byte" in done.out and "model.safetensors" in done.out
    told = ownlm("show", "mine", "--json").json
    assert told["id"] == artifact.id and told["anatomy"]["parameters"] == tiny.config().parameters


def test_what_is_neither_artifact_nor_model(ownlm: Command, tmp_path: Path, folder: Path) -> None:
    done = ownlm("show", tmp_path)
    assert done.code == 2 and "Traceback" not in done.err
    done = ownlm("show", folder, "--length", "0")
    assert done.code == 2 and "length of at least 1" in done.err
    (folder / "model.safetensors").write_bytes(b"short")
    done = ownlm("show", folder)
    assert done.code == 2 and "model.safetensors is no whole safetensors file" in done.err
