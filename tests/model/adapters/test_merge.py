"""Merging folder to folder: what comes out answers as base and adapter together, here and in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from adapter_parts import assert_close
from foreign_adapters import logits_of, make_adapter, make_base, random_ids
from ownlm.model.adapters.merge import merge_folder
from ownlm.model.files import load_model
from ownlm.runtime.errors import OwnLMError

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": ["q_proj", "down_proj"], "r": 4}),
    "dora": ("qwen3", {"target_modules": "all-linear", "r": 4, "use_dora": True, "use_rslora": True}),
    "fused": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"], "r": 4, "use_dora": True}),
    "interleaved": ("gpt_neox", {"target_modules": ["query_key_value"], "r": 4, "use_dora": True}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "use_dora": True, "fan_in_fan_out": True}),
    "biases": ("gpt_neox", {"target_modules": ["dense", "query_key_value"], "lora_bias": True}),
    "experts": ("mixtral", {"target_modules": ["v_proj"], "target_parameters": ["experts.gate_up_proj"]}),
    "head": ("llama", {"target_modules": ["lm_head"]}),
    "tied head": ("qwen3", {"target_modules": ["lm_head", "k_proj"], "use_dora": True}),
    "tied embedding": ("qwen3", {"target_modules": ["embed_tokens"], "r": 4, "use_dora": True}),
    "tied transposed": ("gpt2", {"target_modules": ["wte", "c_attn"], "fan_in_fan_out": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_merged_folder_answers_as_the_adapter_does(case: str, tmp_path: Path) -> None:
    kind, fields = CASES[case]
    base, ids = make_base(kind, tmp_path / "base"), random_ids()
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"a pickle")
    expected = logits_of(make_adapter(base, tmp_path / "adapter", **fields), ids)
    (tmp_path / "adapter" / "chat_template.jinja").write_text("the adapter's own")
    done = merge_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")
    assert_close(logits_of(load_model(tmp_path / "out"), ids), expected)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert_close(logits_of(again, ids), expected)

    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    same = {name for name, tensor in old.items() if torch.equal(tensor, new[name])}
    added = set(new) - set(old)
    assert done.tensors == len(new) == len(old) + len(added) and added <= {"lm_head.weight"}
    assert done.changed == len(new) - len(same)
    assert done.bytes == sum(tensor.nbytes for tensor in new.values())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in (tmp_path / "base").iterdir()} - {"pytorch_model.bin"} | {
        "chat_template.jinja"
    }
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("base", "out")]
    assert {key for key in configs[1] if configs[0].get(key) != configs[1][key]} == (
        {"tie_word_embeddings"} if added else set()
    )


def test_sharded_bfloat16_weights_keep_their_files_and_precision(tmp_path: Path) -> None:
    base = make_base("qwen3", tmp_path / "base").to(torch.bfloat16)
    (tmp_path / "base" / "model.safetensors").unlink()
    base.save_pretrained(tmp_path / "base", max_shard_size="10KB")
    make_adapter(base, tmp_path / "adapter", target_modules=["lm_head", "q_proj"], r=4)
    merge_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")
    shards = sorted(path.name for path in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    merged = load_model(tmp_path / "out")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    assert not merged.config.tied_embeddings
    # Rounded once: each weight is the nearest bfloat16 to the exact sum.
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    part = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    delta = tensors[part.format("B")].double() @ tensors[part.format("A")].double() * (8 / 4)
    name = "layers.0.self_attn.q_proj.weight"
    exact = load_model(tmp_path / "base").get_parameter(name).double() + delta
    assert torch.equal(merged.get_parameter(name), exact.to(torch.bfloat16))


def test_nothing_is_left_where_it_fails(tmp_path: Path) -> None:
    base = make_base("llama", tmp_path / "base")
    make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], lora_bias=True)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OwnLMError, match=r"bias for model\.layers\.0\.self_attn\.q_proj, which has none in"):
        merge_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")
    other = make_base("llama", tmp_path / "other", hidden_size=48)
    make_adapter(other, tmp_path / "wide", target_modules=["q_proj"])
    with pytest.raises(OwnLMError, match=r"q_proj\.lora_A\.weight has shape \(8, 48\), not \(8, 32\)"):
        merge_folder(tmp_path / "wide", tmp_path / "base", tmp_path / "out")
    with pytest.raises(OwnLMError, match="exists already: give a new folder"):
        merge_folder(tmp_path / "wide", tmp_path / "other", tmp_path / "base")
    data = (tmp_path / "other" / "model.safetensors").read_bytes()
    (tmp_path / "other" / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(OwnLMError, match="is no whole safetensors file"):
        merge_folder(tmp_path / "wide", tmp_path / "other", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "other", tmp_path / "wide"])


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from ownlm.runtime.errors import DiskFull

    make_adapter(make_base("llama", tmp_path / "base"), tmp_path / "adapter", target_modules=["q_proj"])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ownlm.model.adapters.merge.os.fsync", full)
    with pytest.raises(DiskFull, match="is full"):
        merge_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_base_that_was_quantised_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    make_adapter(make_base("llama", tmp_path / "base"), tmp_path / "adapter", target_modules=["q_proj"])
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**tensors, name: tensors[name].to(torch.int8)}, path)
    with pytest.raises(
        OwnLMError, match=rf"has a quantised \(I8\) tensor {name}: merge into the model as it was before"
    ):
        merge_folder(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")
