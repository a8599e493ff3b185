"""Adapters made by PEFT, opened here, and the reverse: equal logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapter_parts import assert_close
from foreign_adapters import logits_of, make_adapter, make_base, open_with_peft, random_ids
from ownlm.model.adapters import AdapterConfig, Adapters, fresh_adapter, read_adapter, save_adapter
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family
from ownlm.model.files import load_model
from ownlm.model.folder import read_config

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
MADE_BY_PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": ALL, "r": 4, "lora_alpha": 6}),
    "rslora": ("llama", {"target_modules": ALL, "r": 4, "use_rslora": True}),
    "dora": ("llama", {"target_modules": ALL, "r": 4, "use_dora": True}),
    "rsdora": ("qwen3", {"target_modules": "all-linear", "r": 3, "use_dora": True, "use_rslora": True}),
    "head": ("llama", {"target_modules": ["lm_head", "v_proj"], "r": 4}),
    "head dora": ("llama", {"target_modules": ["lm_head", "v_proj"], "r": 4, "use_dora": True}),
    "tied head": ("qwen3", {"target_modules": ["lm_head", "q_proj"], "r": 4}),
    "tied head dora": ("qwen3", {"target_modules": ["lm_head", "q_proj"], "r": 4, "use_dora": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"], "r": 4}),
    "tied embedding": ("qwen3", {"target_modules": ["embed_tokens", "lm_head"], "r": 4, "use_dora": True}),
    "regular expression": ("llama", {"target_modules": r".*\.0\.mlp\.(up|down)_proj", "r": 4}),
    "layers": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "exclude": ("llama", {"target_modules": ALL, "exclude_modules": ["layers.0.mlp.up_proj", "k_proj"]}),
    "patterns": (
        "llama",
        {"target_modules": ALL, "rank_pattern": {"layers.1.self_attn.q_proj": 2, "up_proj": 6},
         "alpha_pattern": {r"mlp\..*_proj": 32}, "use_rslora": True},
    ),
    "lora bias": ("gpt_neox", {"target_modules": ["dense", "dense_h_to_4h"], "lora_bias": True}),
    "beginning": ("llama", {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal", "lora_dropout": 0.5}),
    "phi3": ("phi3", {"target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], "r": 4}),
    "phi3 dora": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"], "r": 4, "use_dora": True}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 4, "fan_in_fan_out": True}),
    "gpt2 dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "gpt2 embeddings": ("gpt2", {"target_modules": ["wte", "wpe", "c_attn"], "fan_in_fan_out": True}),
    "gpt_neox dora": ("gpt_neox", {"target_modules": ["query_key_value", "dense"], "r": 4, "use_dora": True}),
    "mixtral": (
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"], "r": 4},
    ),
    "mixtral down": ("mixtral", {"target_modules": [], "target_parameters": ["experts.down_proj"], "r": 2}),
    "qwen3_moe": (
        "qwen3_moe",
        {"target_modules": ["v_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "gate.weight"], "r": 4,
         "rank_pattern": {"experts.gate_up_proj": 2}},
    ),
}  # fmt: skip


def opened(folder: Path) -> tuple[Decoder, Family]:
    return load_model(folder), read_config(folder)[1]


def adapted(decoder: Decoder, family: Family, folder: Path) -> Adapters:
    adapters = Adapters(decoder)
    adapters.add("it", read_adapter(folder, decoder, family))
    adapters.activate("it")
    return adapters


@pytest.mark.parametrize("case", MADE_BY_PEFT)
def test_an_adapter_of_peft_gives_the_same_logits_here_and_written_back(case: str, tmp_path: Path) -> None:
    kind, fields = MADE_BY_PEFT[case]
    foreign = make_base(kind, tmp_path / "base")
    ids, (decoder, family) = random_ids(), opened(tmp_path / "base")
    plain = logits_of(foreign, ids)
    assert_close(logits_of(decoder, ids), plain)
    foreign = make_adapter(foreign, tmp_path / "adapter", **fields)
    expected = logits_of(foreign, ids)
    assert float((expected - plain).abs().max()) > 0.05 * float(plain.abs().max()), "the adapter must matter"

    adapters = adapted(decoder, family, tmp_path / "adapter")
    assert_close(logits_of(decoder, ids), expected)
    adapters.activate(None)
    assert_close(logits_of(decoder, ids), plain)
    adapters.activate("it")

    save_adapter(tmp_path / "again", adapters["it"])
    written, original = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("again", "adapter"))
    assert set(written) == {name for name in original if not name.endswith("base_layer.weight")}
    assert all(torch.equal(tensor, original[name]) for name, tensor in written.items())
    again = open_with_peft(foreign.unload(), tmp_path / "again")
    assert_close(logits_of(again, ids), expected)
    with torch.no_grad():
        adapters.merge()
    assert_close(logits_of(decoder, ids), expected)


MADE_HERE: dict[str, tuple[str, AdapterConfig]] = {
    "all": ("qwen3", AdapterConfig(rank=4, alpha=8, dora=True)),
    "names": ("llama", AdapterConfig(rank=2, target_modules=("q_proj", "lm_head"), rslora=True)),
    "fused": ("phi3", AdapterConfig(rank=4, dora=True)),
    "transposed": ("gpt2", AdapterConfig(rank=4)),
    "experts": ("mixtral", AdapterConfig(rank=4)),
    "more experts": ("qwen3_moe", AdapterConfig(target_modules=("gate_proj", "up_proj", "down_proj", "o_proj"))),
    "embedding": ("qwen3", AdapterConfig(target_modules=("embed_tokens", "lm_head"))),
}


@pytest.mark.parametrize("case", MADE_HERE)
def test_an_adapter_made_here_gives_the_same_logits_in_peft(case: str, tmp_path: Path) -> None:
    kind, config = MADE_HERE[case]
    foreign = make_base(kind, tmp_path / "base")
    ids, (decoder, family) = random_ids(), opened(tmp_path / "base")
    plain = logits_of(decoder, ids)
    adapters = Adapters(decoder)
    adapters.add("mine", fresh_adapter(decoder, family, config, seed=3))
    adapters.activate("mine")
    if "embed_tokens" not in config.target_modules:
        assert_close(logits_of(decoder, ids), plain)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in adapters["mine"].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    expected = logits_of(decoder, ids)
    assert float((expected - plain).abs().max()) > 0.05 * float(plain.abs().max())
    save_adapter(tmp_path / "adapter", adapters["mine"])
    assert_close(logits_of(open_with_peft(foreign, tmp_path / "adapter"), ids), expected)
    again, _ = opened(tmp_path / "base")
    adapted(again, family, tmp_path / "adapter")
    assert torch.equal(logits_of(again, ids), expected)


def test_the_config_is_what_peft_writes_where_it_matters(tmp_path: Path) -> None:
    kind, fields = MADE_BY_PEFT["patterns"]
    make_adapter(make_base(kind, tmp_path / "base"), tmp_path / "adapter", **fields)
    decoder, family = opened(tmp_path / "base")
    save_adapter(tmp_path / "again", read_adapter(tmp_path / "adapter", decoder, family))
    theirs, ours = (json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("adapter", "again"))
    for key in ours:
        if key in ("target_modules", "exclude_modules"):
            assert sorted(ours[key] or []) == sorted(theirs[key] or [])
        else:
            assert ours[key] == theirs[key], key


@pytest.mark.parametrize("case", ["lora", "dora", "phi3 dora", "tied head dora", "mixtral"])
def test_gradients_are_those_of_peft(case: str, tmp_path: Path) -> None:
    kind, fields = MADE_BY_PEFT[case]
    foreign = make_adapter(make_base(kind, tmp_path / "base"), tmp_path / "adapter", **fields)
    ids, (decoder, family) = random_ids(), opened(tmp_path / "base")
    targets = random_ids(seed=2)
    adapters = adapted(decoder, family, tmp_path / "adapter")
    learning = adapters.train("it")
    assert {id(each) for each in decoder.parameters() if each.requires_grad} == {id(each) for each in learning}
    hidden = decoder.hidden(ids).flatten(0, 1)
    decoder.cross_entropy(hidden, targets.flatten(), torch.ones(targets.numel())).backward()
    with torch.no_grad():  # the adapter's files name the tensors alike on both sides, gradients instead of numbers
        for parameter in learning:
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    save_adapter(tmp_path / "gradients", adapters["it"]) if case != "mixtral" else None
    for name, parameter in foreign.named_parameters():
        parameter.requires_grad_("lora_" in name)
    logits = foreign(ids).logits.flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum").backward()
    theirs = {name.replace(".default", ""): p.grad for name, p in foreign.named_parameters() if "lora_" in name}
    if case == "mixtral":  # gate and up have an A each here, which begin alike
        updates, experts = adapters["it"].updates, "layers.0.mlp.experts"
        for expert in range(3):
            a = theirs["base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight"].unflatten(0, (3, 4))
            both = sum(updates[f"{experts}.{expert}.{part}_proj"].lora_A.data for part in ("gate", "up"))
            assert_close(both, a[expert], 1e-4)
        return
    ours = load_file(tmp_path / "gradients" / "adapter_model.safetensors")
    assert len(ours) >= len(fields["target_modules"]) * 2
    for name, gradient in ours.items():
        expected = theirs.get(name, theirs.get(f"{name}.weight"))
        assert_close(gradient, expected, 1e-4)
