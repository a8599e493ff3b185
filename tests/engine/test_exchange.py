"""Import and export as a program does them, and what a model's files say about where it came from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import tiny
from ownlm.api import export_model, import_model
from ownlm.engine.origin import Licence, digest, front_matter, licence_of
from ownlm.model.files import save_model
from ownlm.runtime.errors import OwnLMError
from ownlm.store.workspace import Workspace


def test_in_and_out_and_in_again(tmp_path: Path, workspace: Workspace) -> None:
    save_model(tmp_path / "first", tiny.decoder(width=64), tiny.tokenizer())
    artifact = import_model(tmp_path / "first", "mine")
    assert artifact.name == "mine"
    (note,) = export_model("mine", tmp_path / "mine.gguf", to="gguf", type="f32")
    assert note.startswith("Plain text that is no chat begins with <|endoftext|> here; llama.cpp does not add it")
    back = import_model(tmp_path / "mine.gguf", "back")
    export_model("back", tmp_path / "second")
    for name in ("model.safetensors", "generation_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (back.path / name).read_bytes()
    first, second = (tmp_path / place / "model.safetensors" for place in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OwnLMError, match="to='onnx': it is 'hf' or 'gguf'"):
        export_model("mine", tmp_path, to="onnx")


def test_the_card_wins_over_the_licence_file(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == Licence()
    (tmp_path / "LICENSE").write_text("Apache License\nVersion 2.0")
    assert licence_of(tmp_path) == Licence("Apache-2.0", "LICENSE")
    (tmp_path / "README.md").write_text(
        "---\r\nlicense: other\r\nlicense_name: own\r\nlicense_link: LICENSE\r\n---\r\n"
    )
    assert licence_of(tmp_path) == Licence("own", "README.md", "LICENSE")


@pytest.mark.parametrize("text", ["", "no block", "---\nlicense: mit", "--- \n- a list\n---\n", "---\n{: [\n---\n"])
def test_cards_without_a_block(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == {}
    assert front_matter(tmp_path / "nothing.md") == {}


def test_the_hubs_cache_names_files_by_their_digest(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    name = hashlib.sha256(b"weights").hexdigest()
    (blobs / name).write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(blobs / name)
    assert digest(tmp_path / "model.safetensors") == name
    (tmp_path / "config.json").write_bytes(b"{}")
    assert digest(tmp_path / "config.json") == hashlib.sha256(b"{}").hexdigest()
