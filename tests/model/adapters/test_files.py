"""Adapter folders that cannot be used: what is wrong is named, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from ownlm.model.adapters import AdapterConfig, fresh_adapter, read_adapter, read_adapter_config, save_adapter
from ownlm.model.families.gpt2 import family as gpt2
from ownlm.model.families.qwen3 import family
from ownlm.runtime.errors import OwnLMError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
QUERY = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good adapter of the tiny decoder."""
    config = AdapterConfig(rank=4, target_modules=("q_proj", "up_proj"), base="tiny")
    save_adapter(tmp_path / "adapter", fresh_adapter(tiny.decoder(), family, config, seed=0))
    return tmp_path / "adapter"


def change(folder: Path, **fields: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_tensors(folder: Path, **tensors: torch.Tensor | None) -> None:
    found = {**load_file(folder / WEIGHTS), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    save_file({name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}, folder / WEIGHTS)


def message(folder: Path) -> str:
    with pytest.raises(OwnLMError) as caught:
        read_adapter(folder, tiny.decoder(), family)
    return str(caught.value)


def test_a_good_one_is_read(folder: Path) -> None:
    adapter = read_adapter(folder, tiny.decoder(), family)
    assert len(adapter.updates) == 4
    assert adapter.config.base == "tiny"


def test_missing_and_unexpected_tensors_are_each_named(folder: Path) -> None:
    extra = torch.zeros(4, 32)
    change_tensors(folder, **{f"{QUERY}.lora_A.weight": None, f"{QUERY}.lora_B.weight": None,
                              f"{QUERY}.lora_C": extra, "stray": extra.clone()})  # fmt: skip
    text = message(folder)
    name = QUERY.removeprefix("base_model.model.")
    assert f"lacks {name}.lora_A.weight, {name}.lora_B.weight and has unexpected {name}.lora_C, stray" in text


def test_shapes_and_ranks(folder: Path) -> None:
    change_tensors(folder, **{f"{QUERY}.lora_A.weight": torch.zeros(6, 32)})
    assert "q_proj.lora_A.weight is of rank 6, but adapter_config.json says 4 there" in message(folder)
    change_tensors(folder, **{f"{QUERY}.lora_A.weight": torch.zeros(4, 40)})
    assert "q_proj.lora_A.weight has shape (4, 40), not (4, 32): it was made for a model of another" in message(folder)
    change_tensors(folder, **{f"{QUERY}.lora_A.weight": torch.zeros(4, 32), f"{QUERY}.lora_B.weight": torch.zeros(32)})
    assert "q_proj.lora_B.weight has shape (32,), not (32, 4)" in message(folder)
    change(folder, r=8)
    assert "is of rank 4, but adapter_config.json says 8 there (r, or rank_pattern)" in message(folder)


def test_another_architecture(folder: Path) -> None:
    config = tiny.config(rope=None, qk_norm=None, learned_positions=True, norm="layer", gated=False, activation="gelu",
                         qkv_bias=True, output_bias=True, ffn_bias=True, kv_heads=2)  # fmt: skip
    from ownlm.model.decoder import Decoder

    with pytest.raises(
        OwnLMError, match=r"acts on model\.layers\.\S+, which a gpt2 model does not have \(it has trans"
    ):
        read_adapter(folder, Decoder(config), gpt2)
    change(folder, target_modules=["c_attn"])
    assert "target_modules (c_attn) name no module of this model: it has down_proj" in message(folder)


def test_pickles_are_refused_and_the_way_out_is_told(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    text = message(folder)
    assert "a pickle (adapter_model.bin), which can run code" in text
    assert "save_pretrained" in text
    (folder / "adapter_model.bin").unlink()
    assert "has no adapter_model.safetensors" in message(folder)


@pytest.mark.parametrize("size", [0, 7, 300])
def test_a_file_cut_short(folder: Path, size: int) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])
    assert "is no whole safetensors file" in message(folder)


def test_no_adapter_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(OwnLMError, match="no adapter folder: it has no adapter_config"):
        read_adapter_config(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(OwnLMError, match="is not JSON"):
        read_adapter_config(tmp_path)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(OwnLMError, match="not a JSON object"):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'; only LORA"),
        ({"peft_type": None}, "peft_type=None"),
        ({"bias": "all"}, "bias='all'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\].*merge it into its base with PEFT"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora=True"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"kasa_config": {}}, "kasa_config"),
        ({"arrow_config": {"top_k": 1}}, "arrow_config"),
        ({"monteclora_config": {}}, "monteclora_config"),
        ({"megatron_config": {"x": 1}}, "megatron_config"),
        ({"ensure_weight_tying": True}, "ensure_weight_tying"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base's"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights='loftq'"),
        ({"some_new_method": 3}, "keys that are not understood here: some_new_method"),
        ({"target_modules": None}, "names no target_modules"),
        ({"target_modules": [1]}, "must be a list of names"),
        ({"target_modules": "(", "layers_to_transform": None}, "regular expression that is none"),
        ({"target_modules": "all-linear", "layers_to_transform": [0]}, "layers_to_transform"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters have 'mlp.experts.gate_up_proj'"),
        ({"r": "8"}, "r='8'; it must be a whole number"),
        ({"r": 0}, "rank is 0"),
        ({"rank_pattern": {"q_proj": "2"}}, "rank_pattern="),
        ({"lora_dropout": 1.5}, "dropout is 1.5"),
        ({"use_dora": True, "lora_bias": True}, "do not go together"),
    ],
)
def test_what_changes_the_computation_and_is_not_computed_is_named(
    folder: Path, fields: dict[str, Any], words: str
) -> None:
    change(folder, **fields)
    with pytest.raises(OwnLMError, match=words):
        read_adapter(folder, tiny.decoder(), family)


@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"inference_mode": False, "revision": "main", "task_type": None, "auto_mapping": {"a": "b"}},
        {"peft_version": "9.9", "megatron_core": "megatron.core", "loftq_config": {}, "use_bdlora": None},
    ],
)
def test_keys_that_change_nothing_are_passed_over(folder: Path, fields: dict[str, Any]) -> None:
    change(folder, **fields)
    assert read_adapter(folder, tiny.decoder(), family).updates


def test_another_embedding_than_the_bases_is_not_passed_over(tmp_path: Path) -> None:
    decoder = tiny.decoder()
    save_adapter(tmp_path, fresh_adapter(decoder, family, AdapterConfig(rank=2, target_modules=("embed_tokens",)), 0))
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    change_tensors(tmp_path, **{name: decoder.embed_tokens.weight.detach().clone()})
    read_adapter(tmp_path, decoder, family)
    change_tensors(tmp_path, **{name: decoder.embed_tokens.weight.detach() + 1})
    assert "embed_tokens.base_layer.weight of its own, which is not the base's" in message(tmp_path)


def test_names_that_no_checkpoint_has_are_never_read(folder: Path) -> None:
    change(folder, target_modules=r".*self_attn\.(q_proj|rotary)|model\.layers\.\d\.mlp\.up_proj")
    assert len(read_adapter(folder, tiny.decoder(), family).updates) == 4
    change(folder, target_modules=["q_proj"])
    assert "has unexpected model.layers.0.mlp.up_proj.lora_A.weight" in message(folder)
