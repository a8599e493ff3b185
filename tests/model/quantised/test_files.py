"""The format on disk: bit for bit back, as its description says, and (where it is installed) as compressed-tensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from ownlm.model.config import Experts
from ownlm.model.decoder import Decoder
from ownlm.model.families import families
from ownlm.model.files import load_model, save_weights
from ownlm.model.quantised import Scheme, quantise, schemes_of
from ownlm.runtime.errors import OwnLMError

IDS = tiny.random_ids(2, 9)
SCHEMES = ("int8", "int4:32", "int4:64")


def written(folder: Path, scheme: str = "int4:32", family: str = "qwen3", dtype: Any = None, **changes: Any) -> Decoder:
    decoder = tiny.decoder(**changes)
    if dtype is not None:
        decoder.to(dtype)
    quantise(decoder, Scheme.parse(scheme))
    save_weights(folder, decoder, families()[family])
    return decoder


def assert_same(found: Decoder, wanted: Decoder) -> None:
    tensors = wanted.state_dict()
    assert found.state_dict().keys() == tensors.keys()
    for name, tensor in found.state_dict().items():
        assert tensor.dtype is tensors[name].dtype and torch.equal(tensor, tensors[name]), name
    assert schemes_of(found) == schemes_of(wanted)
    with torch.inference_mode():
        assert torch.equal(found(IDS), wanted(IDS))
        assert found.embed_tokens(IDS).dtype is wanted.embed_tokens(IDS).dtype


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tied", [True, False])
def test_reading_gives_back_every_bit(scheme: str, tied: bool, tmp_path: Path) -> None:
    decoder = written(tmp_path, scheme, tied_embeddings=tied)
    assert_same(load_model(tmp_path), decoder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_precisions_too(dtype: torch.dtype, tmp_path: Path) -> None:
    decoder = written(tmp_path, dtype=dtype)
    found = load_model(tmp_path)
    assert_same(found, decoder)
    assert found.head.dtype is dtype


FAMILIES: dict[str, dict[str, Any]] = {
    "phi3": {"qk_norm": None, "tied_embeddings": False},  # several matrices in one tensor
    "qwen2": {"qk_norm": None, "qkv_bias": True},
    "gpt_neox": {
        "qk_norm": None, "norm": "layer", "norm_eps": 1e-5, "qkv_bias": True, "output_bias": True, "ffn_bias": True,
        "gated": False, "activation": "gelu", "tied_embeddings": False, "kv_heads": 2, "parallel_residual": True,
    },
    "gpt2": {
        "qk_norm": None, "norm": "layer", "norm_eps": 1e-5, "qkv_bias": True, "output_bias": True, "ffn_bias": True,
        "gated": False, "activation": "gelu_tanh", "kv_heads": 2, "rope": None, "learned_positions": True,
    },
    "mixtral": {
        "qk_norm": None, "tied_embeddings": False, "experts": Experts(4, 2, 48, (0, 1)), "head_dim": 16, "width": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", ["int8", "int4:32"])
def test_families_that_store_matrices_otherwise(family: str, scheme: str, tmp_path: Path) -> None:
    decoder = written(tmp_path, scheme, family, **FAMILIES[family])
    assert_same(load_model(tmp_path), decoder)


@pytest.mark.parametrize(("scheme", "bits"), [("int8", 8), ("int4:32", 4)])
def test_the_packed_numbers_are_what_the_format_says(scheme: str, bits: int, tmp_path: Path) -> None:
    """Unpacked here with other means: code i of a row is `bits` bits from bit `i * bits` on, unsigned."""
    decoder = written(tmp_path, scheme)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.gate_proj.weight"
    packed = tensors[f"{name}_packed"]
    assert packed.dtype is torch.int32 and packed.shape == (48, 32 * bits // 32)
    assert tensors[f"{name}_shape"].tolist() == [48, 32] and f"{name}" not in tensors
    words = packed.numpy().view(np.uint32).astype(object)
    codes = [[int(row[i * bits // 32]) >> (i * bits % 32) & (2**bits - 1) for i in range(32)] for row in words]
    unpacked = torch.tensor(codes, dtype=torch.float32) - 2 ** (bits - 1)
    weight = unpacked * tensors[f"{name}_scale"].float()
    assert torch.equal(weight, decoder.layers[1].mlp.gate_proj.dense())


def test_the_config_says_what_is_quantised_how(tmp_path: Path) -> None:
    written(tmp_path, "int4:32", "mixtral", **FAMILIES["mixtral"] | {"experts": Experts(4, 2, 80, (0, 1)), "ffn": 80})
    found = json.loads((tmp_path / "config.json").read_text("utf-8"))["quantization_config"]
    assert (found["quant_method"], found["format"]) == ("compressed-tensors", "pack-quantized")
    usual, other = found["config_groups"].values()
    assert usual["targets"] == ["Linear", "Embedding"] and usual["weights"]["group_size"] == 32
    assert other["weights"]["strategy"] == "channel" and other["weights"]["num_bits"] == 8
    assert len(other["targets"]) == 2 * 4 and all(name.endswith("w2") for name in other["targets"])
    assert [name.split(".")[-1] for name in found["ignore"]] == ["gate", "gate"]


def test_a_plain_model_has_no_such_key(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny.decoder())
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text("utf-8"))


def test_a_file_may_leave_the_base_models_prefix_out(tmp_path: Path) -> None:
    decoder = written(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    assert_same(load_model(tmp_path), decoder)


def test_scales_of_other_precisions_keep_every_bit(tmp_path: Path) -> None:
    written(tmp_path, "int4:32")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight_scale"
    tensors[name] = tensors[name].float() * 1.0001
    save_file(tensors, path)
    layer = load_model(tmp_path).layers[0].mlp.up_proj
    codes, scales = layer.rows()
    assert torch.equal(scales, tensors[name])
    assert torch.equal(layer.dense(), (codes.view(48, 1, 32) * scales[..., None]).view(48, 32))
    for rows in (0, 8):
        layer.packed_rows = rows
        x = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        assert (layer(x) - x.float() @ layer.dense().T).abs().max() < 0.05


# ---- what is not understood


CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("another method", {"quant_method": "gptq"}, "quant_method='gptq'"),
    ("another format", {"format": "int-quantized"}, "format='int-quantized'"),
    ("quantised caches", {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme="),
    ("rotations", {"transform_config": {"R1": {}}}, "transform_config="),
    ("sparsity", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config="),
    ("no groups", {"config_groups": None}, "config_groups=None"),
]
GROUPS: list[tuple[str, dict[str, Any], str]] = [
    ("activations", {"input_activations": {"num_bits": 8}}, r"config_groups\.group_0\.input_activations="),
    ("another format", {"format": "marlin-24"}, r"config_groups\.group_0\.format='marlin-24'"),
    ("no weights", {"weights": None}, r"config_groups\.group_0\.weights=None"),
]
WEIGHTS: list[tuple[str, dict[str, Any], str]] = [
    ("floats", {"type": "float"}, r"weights\.type='float'"),
    ("bits", {"num_bits": 3}, r"weights\.num_bits=3"),
    ("zero points", {"symmetric": False}, "'symmetric': False"),
    ("an order of activations", {"actorder": "group"}, r"weights\.actorder='group'"),
    ("groups", {"group_size": 16}, r"weights\.group_size=16"),
    ("a key from the future", {"rotated": True}, r"weights\.rotated=True"),
    ("groups of 8 bits", {"num_bits": 8}, "'num_bits': 8"),
]


@pytest.mark.parametrize(("place", "changes", "named"), [
    *(((), changes, named) for _, changes, named in CONFIGS),
    *((("config_groups", "group_0"), changes, named) for _, changes, named in GROUPS),
    *((("config_groups", "group_0", "weights"), changes, named) for _, changes, named in WEIGHTS),
])  # fmt: skip
def test_a_quantization_config_that_is_not_understood_is_named(
    place: tuple[str, ...], changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    written(tmp_path)
    path = tmp_path / "config.json"
    data = json.loads(path.read_text("utf-8"))
    entry = data["quantization_config"]
    for key in place:
        entry = entry[key]
    entry.update(changes)
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(OwnLMError, match=f"quantization_config has .*{named}"):
        load_model(tmp_path)


def change(tensors: dict[str, torch.Tensor], name: str, how: str) -> None:
    match how:
        case "missing":
            del tensors[name]
        case "shorter":
            tensors[name] = tensors[name][:, :-1].clone()
        case "transposed":
            tensors[name] = tensors[name].T.contiguous()
        case "another type":
            tensors[name] = tensors[name].to(torch.int16)
        case "beside the dense one":
            tensors[name.removesuffix("_packed")] = torch.zeros(48, 32)


@pytest.mark.parametrize(("part", "how", "message"), [
    ("packed", "missing", "lacks .*up_proj.weight_packed"), ("scale", "missing", "lacks .*up_proj.weight_scale"),
    ("packed", "shorter", "are no int8 by channel or int4"), ("scale", "shorter", "are no int8 by channel or int4"),
    ("packed", "transposed", "are no int8 by channel or int4"), ("packed", "another type", "are no int8 by channel"),
    ("packed", "beside the dense one", "has unexpected .*up_proj.weight_packed"),
])  # fmt: skip
def test_parts_that_do_not_fit_are_named(part: str, how: str, message: str, tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    change(tensors, f"model.layers.1.mlp.up_proj.weight_{part}", how)
    save_file(tensors, path)
    with pytest.raises(OwnLMError, match=message):
        load_model(tmp_path)


def test_a_norm_of_another_shape_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.ones(31)
    save_file(tensors, path)
    with pytest.raises(OwnLMError, match=r"model\.norm\.weight is .*31"):
        load_model(tmp_path)


# ---- the oracle: transformers with compressed-tensors


@pytest.mark.parametrize("scheme", ["int8", "int4:32"])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_answers_the_same(scheme: str, tied: bool, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import CompressedTensorsConfig

    # In fp32, since transformers rounds the products of codes and scales to the checkpoint's precision; and with one
    # scheme for all matrices, since it knows one only.
    decoder = written(tmp_path, scheme, tied_embeddings=tied, ffn=64)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    with torch.inference_mode():
        wanted, found = theirs.eval()(IDS).logits, decoder(IDS)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
