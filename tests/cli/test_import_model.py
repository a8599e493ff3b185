"""`ownlm import`: models from folders, GGUF files and the hub become artifacts, or nothing is left of them."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from cli_types import Command
from ownlm.cli.verbs import VERBS, Verb
from ownlm.engine.open import open_model
from ownlm.engine.request import SamplingParams
from ownlm.model.files import save_model
from ownlm.model.gguf.write import write_gguf
from ownlm.store.workspace import Workspace

CARD = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n# A model\n"
GREEDY = SamplingParams(max_tokens=8, temperature=0)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "import", Verb("import_model", ""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as others have it, with files beside that belong to nobody."""
    made = tmp_path / "Tiny-1B"
    save_model(made, tiny.decoder(), tiny.tokenizer())
    (made / "README.md").write_text(CARD)
    (made / "training_args.bin").write_bytes(b"\x80\x04.")
    (made / "modeling_tiny.py").write_text("import os")
    return made


def nothing_left(workspace: Workspace) -> bool:
    return not workspace.artifacts() and not workspace.builds() and not list(workspace.root.glob(".building/*"))


def test_a_folder_becomes_an_artifact(ownlm: Command, folder: Path, workspace: Workspace) -> None:
    done = ownlm("import", folder)
    assert done.code == 0, done.err
    artifact = workspace.resolve("Tiny-1B", ("model",))
    assert set(artifact.files) == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    for name, stored in artifact.files.items():
        assert (artifact.path / name).read_bytes() == (folder / name).read_bytes()
        assert artifact.settings["files"][name] == stored.sha256
    assert artifact.settings["licence"] == "Apache-2.0"
    assert artifact.settings["source"] == "Tiny-1B"
    assert artifact.metrics == {"parameters": tiny.decoder().config.parameters, "context": 64}
    assert "Importing 6 files, 0.1 MB." in done.out
    assert "Licence: Apache-2.0 (says its README.md)" in done.out
    assert "Next: ownlm chat Tiny-1B" in done.out
    model = open_model("Tiny-1B", workspace)
    assert model.generate(["def add"], GREEDY)[0].text == tiny.model().generate(["def add"], GREEDY)[0].text


def test_the_same_again_is_reused_under_either_name(ownlm: Command, folder: Path, workspace: Workspace) -> None:
    first = ownlm("import", folder, "--json").json
    again = ownlm("import", folder, "--name", "mine", "--json").json
    assert (first["reused"], again["reused"]) == (False, True)
    assert first["id"] == again["id"] == workspace.resolve("mine").id
    (folder / "generation_config.json").write_text("{}")
    assert ownlm("import", folder, "--json").json["id"] != first["id"]


@pytest.mark.parametrize(
    ("name", "text", "licence", "place"),
    [
        ("README.md", "---\nlicense: other\nlicense_name: gemma\n---\n", "gemma", "README.md"),
        ("README.md", "---\nlicense: [llama3.1]\n---\n", "llama3.1", "README.md"),
        ("README.md", "# No front matter", "unknown", ""),
        ("README.md", "---\nlicense: [\n---\n", "unknown", ""),
        ("LICENSE", "Permission is hereby granted, free of charge ... The above copyright notice and this permission "
                    "notice", "MIT", "LICENSE"),
    ],
)  # fmt: skip
def test_licences(
    name: str, text: str, licence: str, place: str, ownlm: Command, folder: Path, workspace: Workspace
) -> None:
    (folder / "README.md").unlink()
    (folder / name).write_text(text)
    found = ownlm("import", folder, "--json").json["settings"]
    assert (found["licence"], found["licence_stated_in"]) == (licence, place)


def test_a_gguf_file_becomes_a_model_folder(ownlm: Command, folder: Path, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(folder, file, "f32", name="tiny", licence="apache-2.0")
    done = ownlm("import", file)
    assert done.code == 0, done.err
    artifact = workspace.resolve("tiny")
    assert artifact.settings["files"] == {"tiny.gguf": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (artifact.settings["licence"], artifact.settings["licence_stated_in"]) == ("Apache-2.0", "general.license")
    assert torch.equal(
        load_file(artifact.path / "model.safetensors")["model.norm.weight"],
        load_file(folder / "model.safetensors")["model.norm.weight"],
    )
    model = open_model("tiny", workspace)
    assert model.generate(["def add"], GREEDY)[0].text == tiny.model().generate(["def add"], GREEDY)[0].text
    assert ownlm("import", file, "--json").json["reused"]


def test_blocks_become_fp16_and_that_is_told(ownlm: Command, folder: Path, tmp_path: Path) -> None:
    write_gguf(folder, tmp_path / "tiny.gguf", "q8_0")
    done = ownlm("import", tmp_path / "tiny.gguf")
    assert "Blocks of q8_0 became fp16 numbers" in done.err
    assert "of GGUF (" in done.out and "it becomes 0.1 MB of safetensors" in done.out


def header(path: Path, change: Any) -> None:
    """Changes the JSON header of a safetensors file."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    data = json.loads(content[8 : 8 + length])
    change(data)
    text = json.dumps(data).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def overlap(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        first, second = (data["model.layers.0.self_attn.k_proj.weight"], data["model.layers.0.self_attn.v_proj.weight"])
        second["data_offsets"] = first["data_offsets"]

    header(folder / "model.safetensors", change)


def resave(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def edit(folder: Path, name: str, **changes: Any) -> None:
    data = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(data | changes))


BROKEN = [
    pytest.param(pickle, "only pickles (pytorch_model.bin, training_args.bin)", id="pickle"),
    pytest.param(truncate, "model.safetensors is no whole safetensors file", id="truncated"),
    pytest.param(overlap, "model.safetensors is no whole safetensors file", id="overlapping"),
    pytest.param(lambda f: resave(f, lambda t: t.pop("model.norm.weight")), "lacks model.norm.weight", id="missing"),
    pytest.param(
        lambda f: resave(f, lambda t: t.update({"model.extra": torch.ones(2)})), "unexpected model.extra", id="extra"
    ),
    pytest.param(
        lambda f: resave(f, lambda t: t.update({"model.norm.weight": torch.ones(5)})),
        "the tensor model.norm.weight has shape (5,), not (32,)", id="shape",
    ),
    pytest.param(
        lambda f: resave(f, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})),
        "is stored as I8", id="integers",
    ),
    pytest.param(lambda f: edit(f, "config.json", model_type="bert"), "'bert'; the known types are", id="family"),
    pytest.param(lambda f: edit(f, "config.json", vocab_size=100), "embed_tokens.weight has shape", id="rows"),
    pytest.param(lambda f: edit(f, "config.json", mystery=1), "not understood here: mystery", id="key"),
    pytest.param(lambda f: (f / "config.json").write_text("{"), "config.json is not JSON", id="json"),
    pytest.param(lambda f: (f / "config.json").unlink(), "it has no config.json", id="no config"),
    pytest.param(lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json", id="no tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_what_cannot_be_read_leaves_nothing(
    damage: Any, message: str, ownlm: Command, folder: Path, workspace: Workspace
) -> None:
    damage(folder)
    done = ownlm("import", folder)
    assert done.code == 2
    assert message in done.err
    assert nothing_left(workspace)


def test_a_tokenizer_larger_than_the_embedding(ownlm: Command, folder: Path, workspace: Workspace) -> None:
    data = json.loads((folder / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"].append({"id": tiny.tokenizer().vocab_size, "content": "<more>", **flags})
    (folder / "tokenizer.json").write_text(json.dumps(data))
    done = ownlm("import", folder)
    assert done.code == 2
    assert f"the tokenizer has {tiny.tokenizer().vocab_size + 1} tokens, the embedding only" in done.err
    assert nothing_left(workspace)


@pytest.mark.parametrize("source", ["nowhere", "nowhere.gguf", "openai:http://x#y"])
def test_nothing_to_import(source: str, ownlm: Command) -> None:
    done = ownlm("import", source)
    assert done.code == 2
    assert f"{source} is none of hf:ORG/NAME, a model folder and a .gguf file" in done.err


def test_a_gguf_cut_short_leaves_nothing(ownlm: Command, folder: Path, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(folder, file, "f32")
    file.write_bytes(file.read_bytes()[:-500])
    done = ownlm("import", file)
    assert done.code == 2
    assert "tiny.gguf is no whole GGUF file" in done.err
    assert nothing_left(workspace)


def test_a_failure_while_copying_leaves_nothing(
    ownlm: Command, folder: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ownlm.engine.importing.shutil.copyfileobj", fail)
    assert ownlm("import", folder).code == 130
    assert nothing_left(workspace)


class Hub:
    """A hub with one model, in place of huggingface_hub's calls."""

    def __init__(self, snapshot: Path, names: list[str]) -> None:
        self.snapshot, self.names, self.asked = snapshot, names, dict[str, Any]()

    def model_info(self, repository: str, files_metadata: bool) -> Any:
        files = [SimpleNamespace(rfilename=name, size=1_000_000) for name in self.names]
        return SimpleNamespace(siblings=files, sha="c0ffee")

    def snapshot_download(self, repository: str, **asked: Any) -> str:
        self.asked = asked
        return str(self.snapshot)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    names = [path.name for path in folder.iterdir()]
    made = Hub(folder, [*names, "onnx/model.json", "consolidated.safetensors"])
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    return made


def test_from_the_hub(ownlm: Command, hub: Hub, workspace: Workspace) -> None:
    done = ownlm("import", "hf:org/Tiny-Chat")
    assert done.code == 0, done.err
    artifact = workspace.resolve("Tiny-Chat")
    assert artifact.settings["source"] == "hf:org/Tiny-Chat"
    assert artifact.settings["revision"] == "c0ffee"
    assert "Downloading up to 6.0 MB in 6 files from org/Tiny-Chat." in done.out
    assert hub.asked["revision"] == "c0ffee"
    assert sorted(hub.asked["allow_patterns"]) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    weights = artifact.path / "model.safetensors"
    assert weights.stat().st_ino == (hub.snapshot / "model.safetensors").stat().st_ino  # linked, not copied


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "pytorch_model.bin"], "has only pickles (pytorch_model.bin)"),
        (["tiny-Q4_K_M.gguf"], "has GGUF files; download one (tiny-Q4_K_M.gguf) and import that"),
        (["README.md"], "has no .safetensors file"),
    ],
)
def test_repositories_without_weights(names: list[str], message: str, ownlm: Command, hub: Hub) -> None:
    hub.names = names
    done = ownlm("import", "hf:org/name")
    assert done.code == 2
    assert message in done.err
    assert not hub.asked


def test_no_network(ownlm: Command, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    done = ownlm("import", "hf:org/name")
    assert done.code == 2
    assert "hf:org/name cannot be had from the Hugging Face Hub (ConnectionError): check the name" in done.err
    assert nothing_left(workspace)
