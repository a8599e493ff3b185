"""A model's parts add up to what it really has, does and takes."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import family_cases
import tiny
from family_cases import BY_NAME, CASES, FAMILIES, Case
from ownlm.model.anatomy import PARTS, Anatomy, Header, anatomy_of, anatomy_of_folder, keys_seen
from ownlm.model.cache import StaticCache
from ownlm.model.decoder import Decoder
from ownlm.model.families import families
from ownlm.model.files import load_model, save_model
from ownlm.model.folder import WEIGHTS
from ownlm.runtime.errors import OwnLMError

LENGTH = 6
"""Shorter than every window."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def part_in_transformers(name: str) -> str:
    """By the names of others' checkpoints, which tell as much."""
    if any(word in name for word in ("norm", "ln_")):
        return "norms"
    if any(word in name for word in ("attn", "attention")):
        return "attention"
    if any(word in name for word in ("mlp", "block_sparse_moe")):
        return "feed-forward"
    return "head" if name.startswith(("lm_head", "embed_out")) else "embeddings"


@every_case
def test_parts_add_up_to_what_transformers_counts_and_what_the_files_hold(case: Case, tmp_path: Path) -> None:
    theirs = family_cases.make(case)
    found = anatomy_of_folder(family_cases.save(theirs, tmp_path))
    assert found.parameters == theirs.num_parameters()
    counts, sizes = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, tensor in load_file(tmp_path / WEIGHTS).items():
        counts[part_in_transformers(name)] += tensor.numel()
        sizes[part_in_transformers(name)] += tensor.nbytes
    assert {part.name: part.parameters for part in found.parts} == counts
    assert {part.name: part.bytes for part in found.parts} == sizes
    assert found.bytes == found.stored["F32"] == 4 * found.parameters


@every_case
@torch.no_grad()
def test_flops_are_those_that_torch_counts(case: Case, tmp_path: Path) -> None:
    folder = family_cases.save(family_cases.make(case), tmp_path)
    decoder = load_model(folder)
    cache = StaticCache(decoder.config, 1, LENGTH, torch.float32, torch.device("cpu"))
    decoder.hidden(family_cases.text(LENGTH - 1), cache=cache)
    # This kernel is made of plain matmuls, which torch counts one by one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.logits(decoder.hidden(family_cases.text(1), cache=cache))
    found = anatomy_of_folder(folder, LENGTH)
    assert found.flops == counter.get_total_flops()
    assert sum(part.flops for part in found.parts) == found.flops


@torch.no_grad()
def test_each_part_of_the_flops() -> None:
    found = of("qwen 3", LENGTH)
    flops = {part.name: part.flops for part in found.parts}
    layers, width, heads, kv_heads, head_dim, ffn = 2, 32, 4, 2, 16, 48
    attention = 2 * width * head_dim * 2 * (heads + kv_heads) + 2 * 2 * LENGTH * heads * head_dim
    assert flops == {
        "embeddings": 0, "attention": layers * attention, "feed-forward": layers * 2 * 3 * width * ffn, "norms": 0,
        "head": 2 * width * 101,
    }  # fmt: skip


def headers_of(data: dict[str, Any], kind: str = "BF16") -> dict[str, Header]:
    """The headers that a checkpoint of this config has."""
    family = families()[data["model_type"]]
    config = family.read_config(data)
    with torch.device("meta"):
        parameters = dict(Decoder(config).named_parameters())
    stored = family.tensors(config)
    return {
        each.name: Header(kind, tuple(each.join([parameters[p] for p in each.parameters]).shape)) for each in stored
    }


def of(name: str, length: int = 1000, **changes: Any) -> Anatomy:
    data = {**json.loads(BY_NAME[name].config().to_json_string()), **changes}
    return anatomy_of(data, headers_of(data), name, length)


def test_windows_bound_the_work_and_the_cache() -> None:
    found, longer = of("gemma 2", 50), of("gemma 2", 100)
    config = found.config
    assert keys_seen(config, 50) == [7, 50, 7] and keys_seen(config, 5) == [5, 5, 5]
    assert longer.flops - found.flops == 4 * config.heads * config.head_dim * 50
    a_token = 2 * config.kv_heads * config.head_dim * 2
    assert found.cache_bytes(50) == (7 + 50 + 7) * a_token
    assert found.cache_bytes(5, number=4) == 2 * 15 * a_token


def test_without_windows_the_cache_is_as_large_as_ours() -> None:
    found = of("llama 3")
    cache = StaticCache(found.config, 1, 100, torch.bfloat16, torch.device("cpu"))
    assert found.cache_bytes(100) == cache.keys.nbytes + cache.values.nbytes


def test_experts_that_rest_count_as_parameters_only() -> None:
    found = of("qwen 3 moe, plain shares")
    idle = 2 * (5 - 2) * 3 * 32 * 24
    assert found.parameters - found.at_work == idle
    assert "picks 2 of 5 experts" in {part.name: part for part in found.parts}["feed-forward"].sentence
    dense = of("qwen 3")
    assert dense.parameters == dense.at_work


def test_a_published_model_and_its_known_figures() -> None:
    data = {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768, "vocab_size": 32000,
        "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
    }  # fmt: skip
    found = anatomy_of(data, headers_of(data), "Mixtral 8x7B")
    assert (found.parameters, found.at_work) == (46_702_792_704, 12_879_925_248)
    assert found.bytes == 2 * found.parameters
    assert found.cache_bytes(1000) == 131_072_000


def test_the_length_is_cut_to_the_context() -> None:
    assert of("llama 2", 1000).length == 128
    assert of("llama 2", 1000).flops == of("llama 2", 128).flops > of("llama 2", 127).flops
    with pytest.raises(OwnLMError, match="length of at least 1"):
        of("llama 2", 0)


@pytest.mark.parametrize("name", ["phi 3", "llama 3.2"])
def test_packed_matrices_take_what_their_parts_take(name: str) -> None:
    data = json.loads(BY_NAME[name].config().to_json_string())
    headers: dict[str, Header] = {}
    for key, header in headers_of(data).items():
        if len(header.shape) == 2:
            rows, columns = header.shape
            headers |= {f"{key}_packed": Header("I32", (rows, columns // 8)), f"{key}_scale": Header("BF16", (rows, 1)),
                        f"{key}_shape": Header("I64", (2,))}  # fmt: skip
        else:
            headers[key] = header
    found = anatomy_of({**data, "quantization_config": {"quant_method": "compressed-tensors"}}, headers, name)
    assert found.parameters == of(name).parameters
    assert found.bytes == sum(found.stored.values()) == sum(header.bytes for header in headers.values())
    assert found.bytes < 0.5 * of(name).bytes


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neox", "llama"])
def test_buffers_prefixes_and_a_stored_tied_head_do_not_count(model_type: str) -> None:
    data = json.loads(FAMILIES[model_type].config().to_json_string())
    plain = headers_of(data)
    prefix = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}[model_type]
    more = {"h.0.attn.bias": Header("U8", (1, 1, 128, 128)), "rotary_emb.inv_freq": Header("F32", (4,))}
    bare = {name.removeprefix(prefix): header for name, header in plain.items()} | more
    assert anatomy_of(data, bare, "x").parts == anatomy_of(data, plain, "x").parts
    if data["tie_word_embeddings"]:
        both = {**plain, "lm_head.weight": Header("BF16", (101, 32))}
        assert anatomy_of(data, both, "x").bytes == anatomy_of(data, plain, "x").bytes


def test_a_model_of_ours_and_every_sentence(tmp_path: Path) -> None:
    save_model(tmp_path, tiny.decoder().bfloat16(), tiny.tokenizer())
    found = anatomy_of_folder(tmp_path)
    assert (found.family, set(found.stored)) == ("qwen3", {"BF16"})
    assert found.bytes == 2 * found.parameters == 2 * found.config.parameters
    assert all(part.sentence.endswith(".") for part in found.parts)
    assert json.loads(json.dumps(found.to_json()))["parts"][4]["sentence"].endswith("shares the embeddings' matrix.")


@pytest.mark.skipif(sys.platform == "win32", reason="no files with holes there")
def test_a_file_larger_than_the_memory_is_looked_at(tmp_path: Path) -> None:
    data = json.loads(BY_NAME["llama 2"].config().to_json_string()) | {"vocab_size": 10**9, "hidden_size": 512}
    write(tmp_path, data, headers_of(data))
    found = anatomy_of_folder(tmp_path)
    assert found.bytes > 2e12 and (tmp_path / WEIGHTS).stat().st_size > 2e12


def write(folder: Path, data: dict[str, Any], headers: Mapping[str, Header]) -> None:
    """A model folder whose weights are a hole in the file."""
    (folder / "config.json").write_text(json.dumps(data))
    table, end = {}, 0
    for name, header in headers.items():
        table[name] = {"dtype": header.kind, "shape": header.shape, "data_offsets": [end, end + header.bytes]}
        end += header.bytes
    text = json.dumps(table).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        try:
            file.truncate(8 + len(text) + end)
        except OSError as error:
            pytest.skip(f"this disk has no files of two terabytes with holes ({error})")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return family_cases.save(family_cases.make(BY_NAME["llama 2"]), tmp_path / "model")


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_file_cut_short(folder: Path, size: int) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:size])
    with pytest.raises(OwnLMError, match=r"model\.safetensors is no whole safetensors file"):
        anatomy_of_folder(folder)


@pytest.mark.parametrize("table", [b"[]", b'{"a": 3}', b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": []}}'])
def test_headers_that_are_none(folder: Path, table: bytes) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(table)) + table)
    with pytest.raises(OwnLMError, match="no whole safetensors file"):
        anatomy_of_folder(folder)


def test_a_header_as_long_as_a_machine_can_count(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)
    with pytest.raises(OwnLMError, match="no whole safetensors file"):
        anatomy_of_folder(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(OwnLMError, match=r"they lack model\.layers\.1\.mlp\.up_proj\.weight"):
        anatomy_of_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "it has no config.json"), ("{", "is not JSON"), ("[]", "not a JSON object"),
     ('{"model_type": "mystery"}', "type 'mystery'; the known types are")],
)  # fmt: skip
def test_a_config_that_cannot_be_read(folder: Path, content: str | None, message: str) -> None:
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(OwnLMError, match=message):
        anatomy_of_folder(folder)
