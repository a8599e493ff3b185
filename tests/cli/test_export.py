"""`ownlm export`: what others open, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from cli_types import Command
from llama_cpp import LlamaCpp, greedy, until_close
from ownlm.cli.verbs import VERBS, Verb
from ownlm.model.files import save_model
from ownlm.model.rope import Rope
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

SIZES = {"width": 64, "head_dim": 32, "ffn": 96, "context": 128}


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "export", Verb("export", ""))


@pytest.fixture
def model(workspace: Workspace) -> Artifact:
    """A model artifact, with training text beside the model."""

    def build(target: Build) -> dict[str, Any]:
        save_model(target.folder, tiny.decoder(**SIZES), tiny.tokenizer())
        (target.folder / "heldout.jsonl").write_text("private\n")
        return {}

    return workspace.make("model", "tiny", build, settings={"licence": "MIT"})[0]


def test_a_folder_that_transformers_opens(ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = tmp_path / "out" / "tiny"
    done = ownlm("export", "tiny", target, "--to", "hf")
    assert done.code == 0, done.err
    names = {path.name for path in target.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for name in names:
        assert (target / name).read_bytes() == (model.path / name).read_bytes()
    theirs = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    ids = tiny.random_ids(1, 20)
    with torch.no_grad():
        expected = tiny.decoder(**SIZES)(ids)
        assert float((theirs(ids).logits - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert AutoTokenizer.from_pretrained(target)("def add")["input_ids"] == tiny.tokenizer().encode("def add")
    assert f"Next: ownlm chat {target}" in done.out


def test_the_card_of_a_report_goes_along(ownlm: Command, model: Artifact, workspace: Workspace, tmp_path: Path) -> None:
    def build(target: Build) -> dict[str, Any]:
        (target.folder / "model-card.md").write_text("# The card")
        return {}

    workspace.make("report", "tiny", build, inputs={"model": model.id})
    ownlm("export", "tiny", tmp_path / "out", "--to", "hf")
    assert (tmp_path / "out" / "README.md").read_text() == "# The card"


def test_a_file_that_llama_cpp_opens(ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    done = ownlm("export", model.id, file, "--to", "gguf", "--type", "f32")
    assert done.code == 0, done.err
    prompt = tiny.tokenizer().encode("def add(")
    expected, gaps = greedy(tiny.decoder(**SIZES), prompt, [tiny.tokenizer().end_of_text, tiny.tokenizer().end_of_turn])
    compared = until_close(expected, gaps)
    assert len(compared) > 10
    assert LlamaCpp(file).greedy(prompt)[: len(compared)] == compared
    assert f"llama-cli -m {file}" in done.out
    assert f"FROM {file}" in done.out
    assert f"Next: llama-server -m {file}" in done.out


def test_json(ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    found = ownlm("export", "tiny", tmp_path / "a.gguf", "--to", "gguf", "--json").json
    assert found["type"] == "f16"
    assert found["bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert found["context"] == 128
    found = ownlm("export", model.path, tmp_path / "out", "--to", "hf", "--json").json
    assert found["files"] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_nothing_is_overwritten_without_force(ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.gguf", tmp_path / "out"
    file.write_text("old")
    folder.mkdir()
    (folder / "config.json").write_text("old")
    for to, target in (("gguf", file), ("hf", folder)):
        done = ownlm("export", "tiny", target, "--to", to)
        assert done.code == 2
        assert f"{target} exists already; add --force to replace it" in done.err
    assert file.read_text() == (folder / "config.json").read_text() == "old"
    for to, target in (("gguf", file), ("hf", folder)):
        assert ownlm("export", "tiny", target, "--to", to, "--force").code == 0
    assert file.read_bytes()[:4] == b"GGUF"
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen3"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_force_replaces_models_only(ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    done = ownlm("export", "tiny", tmp_path / "photos", "--to", "hf", "--force")
    assert done.code == 2
    assert "is no exported model: it is not replaced" in done.err
    assert ownlm("export", "tiny", model.path, "--to", "hf", "--force").code == 2
    assert (tmp_path / "photos" / "cat.jpg").exists()
    done = ownlm("export", "tiny", tmp_path / "photos", "--to", "gguf", "--force")
    assert "is a folder; name a file" in done.err


def test_a_failure_leaves_the_old_folder(
    ownlm: Command, model: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "config.json").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ownlm.engine.exporting.shutil.copyfile", fail)
    done = ownlm("export", "tiny", folder, "--to", "hf", "--force")
    assert done.code == 2
    assert "is full" in done.err
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("workspace", "out")] == []
    assert (folder / "config.json").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf", "--type", "q4_k"], "--type q4_k can be read here, not written; there is: f32, f16, bf16"),
        (["--to", "hf", "--type", "f16"], "--type belongs to --to gguf"),
        (["--to", "onnx"], "'onnx' is not one of 'hf', 'gguf'"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    done = ownlm("export", "tiny", tmp_path / "out", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("nobody", "The model 'nobody' is not known. There is: tiny."), ("openai:http://x#y", "is on another machine")],
)
def test_unknown_models(name: str, message: str, ownlm: Command, model: Artifact, tmp_path: Path) -> None:
    done = ownlm("export", name, tmp_path / "out", "--to", "hf")
    assert done.code == 2
    assert message in done.err


def test_what_llama_cpp_cannot_compute(ownlm: Command, tmp_path: Path) -> None:
    rope = Rope(1000.0, kind="dynamic", factor=2.0, original_context=64)
    save_model(tmp_path / "tiny", tiny.decoder(**SIZES, rope=rope), tiny.tokenizer())
    done = ownlm("export", tmp_path / "tiny", tmp_path / "tiny.gguf", "--to", "gguf")
    assert done.code == 2
    assert "cannot be written as GGUF: llama.cpp does not compute RoPE of the kind 'dynamic'" in done.err
    assert not (tmp_path / "tiny.gguf").exists()


def test_quantize_belongs_to_folders(ownlm: Command, tmp_path: Path) -> None:
    done = ownlm("export", "any", str(tmp_path / "m.gguf"), "--to", "gguf", "--quantize", "int8")
    assert done.code == 2 and "--quantize belongs to --to hf" in done.err
