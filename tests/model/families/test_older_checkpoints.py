"""Checkpoints as people have them on disk: in 16 bits, sharded, with older names, buffers and configs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import family_cases
from family_cases import BY_NAME, CASES, FAMILIES, Case
from ownlm.model.files import load_model, save_weights
from ownlm.model.folder import INDEX, WEIGHTS, read_config
from ownlm.runtime.errors import OwnLMError

every_family = pytest.mark.parametrize("case", FAMILIES.values(), ids=lambda case: case.model_type)
Tensors = dict[str, Tensor]


def saved(name: str, folder: Path) -> Path:
    return family_cases.save(family_cases.make(BY_NAME[name]), folder)


def change_tensors(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = change(load_file(folder / WEIGHTS))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def same_weights(folder: Path, other: Path) -> bool:
    pairs = zip(load_model(folder).named_parameters(), load_model(other).named_parameters(), strict=True)
    return all(one == two and a.dtype == b.dtype and torch.equal(a, b) for (one, a), (two, b) in pairs)


@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_stored_precision_is_kept_bit_for_bit(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = family_cases.make(case, dtype)
    folder, written = family_cases.save(theirs, tmp_path / "theirs"), tmp_path / "ours"
    decoder = load_model(folder)
    assert {parameter.dtype for parameter in decoder.parameters()} == {dtype}
    save_weights(written, decoder, read_config(folder)[1], family_cases.NO_ENDS)
    assert same_weights(folder, written)
    opened, state = family_cases.opened(written), theirs.state_dict()
    assert opened.dtype == dtype and all(torch.equal(state[name], each) for name, each in opened.state_dict().items())
    # What is multiplied is fp32 here, whatever is stored.
    ids = family_cases.text(24)
    expected = family_cases.opened(folder, torch.float32)(ids).logits
    assert float((decoder(ids) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_each_tensor_keeps_its_own_precision(tmp_path: Path) -> None:
    folder = saved("qwen 3", tmp_path / "theirs")
    change_tensors(
        folder, lambda all_: {name: each if "norm" in name else each.bfloat16() for name, each in all_.items()}
    )
    decoder = load_model(folder)
    kinds = {name: parameter.dtype for name, parameter in decoder.named_parameters()}
    assert kinds["norm.weight"] == torch.float32 and kinds["layers.0.self_attn.q_proj.weight"] == torch.bfloat16
    save_weights(tmp_path / "ours", decoder)
    assert same_weights(folder, tmp_path / "ours")
    wide = load_model(folder, dtype=torch.float32)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}
    assert all(torch.equal(a, b.float()) for a, b in zip(wide.parameters(), decoder.parameters()))


@every_family
def test_shards_hold_the_same(case: Case, tmp_path: Path) -> None:
    theirs = family_cases.make(case)
    whole, parts = family_cases.save(theirs, tmp_path / "whole"), tmp_path / "parts"
    family_cases.save(theirs, parts, max_shard_size="20KB")
    assert (parts / INDEX).is_file() and len(list(parts.glob("*.safetensors"))) > 2
    assert same_weights(whole, parts)


def test_what_is_large_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("phi 3", tmp_path / "theirs")
    monkeypatch.setattr("ownlm.model.files.SHARD_BYTES", 20_000)
    decoder, (_, family) = load_model(folder), read_config(folder)
    save_weights(tmp_path / "ours", decoder, family, family_cases.NO_ENDS)
    assert (tmp_path / "ours" / "model-00007-of-00007.safetensors").is_file()
    assert same_weights(folder, tmp_path / "ours")
    state = family_cases.opened(folder).state_dict()
    again = family_cases.opened(tmp_path / "ours").state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def causal(size: int = 128) -> Tensor:
    return torch.ones(1, 1, size, size, dtype=torch.uint8).tril()


def bare_gpt2(tensors: Tensors) -> Tensors:
    """The names that OpenAI's weights have on the hub: the base model's, with the mask as a buffer of each layer."""
    buffers = {f"h.{layer}.attn.{name}": each for layer in range(3)
               for name, each in (("bias", causal()), ("masked_bias", torch.tensor(-1e4)))}  # fmt: skip
    return {name.removeprefix("transformer."): each for name, each in tensors.items()} | buffers


def neox_with_buffers(tensors: Tensors) -> Tensors:
    """Pythia's files."""
    buffers = {f"gpt_neox.layers.{layer}.attention.{name}": each for layer in range(2)
               for name, each in (("bias", causal()), ("masked_bias", torch.tensor(-1e9)),
                                  ("rotary_emb.inv_freq", torch.ones(2)))}  # fmt: skip
    return tensors | buffers


def llama_with_buffers(tensors: Tensors) -> Tensors:
    """Llama 2's files."""
    return tensors | {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}


def bare(tensors: Tensors) -> Tensors:
    """A checkpoint of the base model: no prefix, and no head, which is tied."""
    return {name.removeprefix("model."): each for name, each in tensors.items()}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("gpt 2", bare_gpt2, id="gpt 2"),
        pytest.param("gpt neox", neox_with_buffers, id="gpt neox"),
        pytest.param("llama 2", llama_with_buffers, id="llama"),
        pytest.param("qwen 2", bare, id="bare qwen 2"),
    ],
)
@torch.no_grad()
def test_older_names_and_buffers(name: str, change: Callable[[Tensors], Tensors], tmp_path: Path) -> None:
    folder, older = saved(name, tmp_path / "new"), saved(name, tmp_path / "older")
    change_tensors(older, change)
    assert set(load_file(older / WEIGHTS)) != set(load_file(folder / WEIGHTS))
    assert same_weights(folder, older)
    # Transformers finds the same in it.
    ids = family_cases.text(24)
    expected = family_cases.opened(older)(ids).logits
    assert float((load_model(older)(ids) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


TIED = ["llama 3.2", "qwen 3", "gemma 2", "smollm 3", "gpt 2", "gpt neox, one after the other"]


@pytest.mark.parametrize("name", TIED)
def test_a_tied_head_may_be_stored_too_if_it_is_the_same(name: str, tmp_path: Path) -> None:
    folder, plain = saved(name, tmp_path / "both"), saved(name, tmp_path / "plain")
    embedding = {"gpt2": "transformer.wte.weight", "gpt_neox": "gpt_neox.embed_in.weight"}
    head = "embed_out.weight" if BY_NAME[name].model_type == "gpt_neox" else "lm_head.weight"
    source = embedding.get(BY_NAME[name].model_type, "model.embed_tokens.weight")
    change_tensors(folder, lambda all_: {**all_, head: all_[source].clone()})
    assert same_weights(folder, plain)
    change_tensors(folder, lambda all_: {**all_, head: all_[source] + 0.01})
    with pytest.raises(OwnLMError, match=f"ties the head to the embedding, but {head} holds other numbers"):
        load_model(folder)


def as_version_4_wrote_it(data: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` of transformers 5 in the spelling of earlier ones."""
    older = {key: value for key, value in data.items() if key not in ("rope_parameters", "layer_types", "dtype")}
    older |= {"torch_dtype": data["dtype"]} if "dtype" in data else {}
    kinds = data.get("layer_types") or []
    default = {"gemma2": lambda i: i % 2 == 0, "gemma3_text": lambda i: (i + 1) % data["sliding_window_pattern"] > 0,
               "smollm3": lambda i: data["use_sliding_window"] and not data["no_rope_layers"][i],
               "qwen2": lambda i: data["use_sliding_window"] and i >= data["max_window_layers"]}  # fmt: skip
    rule = default.get(data["model_type"], default["qwen2"])
    if "sliding_window_pattern" not in data and data["model_type"] == "gemma3_text":
        rule = lambda i: False  # noqa: E731
    if [kind == "sliding_attention" for kind in kinds] != [bool(rule(i)) for i in range(len(kinds))]:
        older["layer_types"] = kinds
    table = dict(data.get("rope_parameters") or {})
    if data["model_type"] == "gemma3_text":
        older.pop("_sliding_window_pattern")
        older["rope_local_base_freq"] = table["sliding_attention"]["rope_theta"]
        table = dict(table["full_attention"])
    names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in table:
            older[names[key] if data["model_type"] == "gpt_neox" else key] = table.pop(key)
    if data["model_type"] == "phi3":
        table.pop("original_max_position_embeddings", None)
    if not table:
        return older
    kind = table.pop("rope_type", "default")
    spelling = "rope_type" if data["model_type"] == "gemma3_text" or kind == "llama3" else "type"
    return older | {"rope_scaling": {spelling: kind, **table} if kind != "default" else None}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@torch.no_grad()
def test_a_config_of_transformers_4_means_the_same(case: Case, tmp_path: Path) -> None:
    folder = family_cases.save(family_cases.make(case), tmp_path)
    config, path = read_config(folder)[0], folder / "config.json"
    data = json.loads(path.read_text())
    older = as_version_4_wrote_it(data)
    assert not {"rope_parameters", "dtype"} & set(older) and older != data
    expected = family_cases.opened(folder)(family_cases.text(case.lengths[-1])).logits
    path.write_text(json.dumps(older))
    assert read_config(folder)[0] == config
    assert torch.equal(family_cases.opened(folder)(family_cases.text(case.lengths[-1])).logits, expected)
