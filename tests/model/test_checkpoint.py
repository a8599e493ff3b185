"""A model folder as named parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from ownlm.model.checkpoint import Checkpoint
from ownlm.model.families import families
from ownlm.model.files import save_weights
from ownlm.model.folder import is_model_file, model_files
from ownlm.runtime.errors import OwnLMError

PHI3 = {"qk_norm": None, "tied_embeddings": False}


@pytest.mark.parametrize(("model_type", "changes"), [("qwen3", {}), ("phi3", PHI3)])
def test_every_parameter_as_it_was(model_type: str, changes: dict[str, Any], tmp_path: Path) -> None:
    decoder = tiny.decoder(**changes)
    save_weights(tmp_path, decoder, families()[model_type])
    checkpoint = Checkpoint(tmp_path)
    for name, parameter in decoder.named_parameters():
        assert torch.equal(checkpoint.parameter(name), parameter)
        assert checkpoint.shape(name) == parameter.shape
    assert torch.equal(checkpoint.parameter("lm_head.weight"), decoder.head)


def test_a_bare_base_model_with_buffers(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny.decoder())
    tensors = {name.removeprefix("model."): each for name, each in load_file(tmp_path / "model.safetensors").items()}
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(Checkpoint(tmp_path).parameter("norm.weight"), tiny.decoder().norm.weight)


def test_one_tensor_in_two_files(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny.decoder())
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    save_file({"model.norm.weight": torch.ones(32)}, tmp_path / "b.safetensors")
    with pytest.raises(OwnLMError, match="the tensor model.norm.weight is there twice"):
        Checkpoint(tmp_path)


def test_which_files_belong_to_a_model(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny.decoder())
    for name in ("LICENSE.txt", "NOTICE", "README.md", "answers.jsonl", "train.py", "optimizer.pt", "artifact.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tools.jinja").write_text("")
    assert {path.name for path in model_files(tmp_path)} == {
        "LICENSE.txt", "NOTICE", "README.md", "config.json", "model.safetensors", "tools.jinja",
    }  # fmt: skip
    assert not is_model_file("original/config.json")
