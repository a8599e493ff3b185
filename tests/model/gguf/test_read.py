"""Reading GGUF: every bit of plain numbers, blocks as the gguf package has them, and files that are not whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from ownlm.model.families import families
from ownlm.model.files import load_model, save_model
from ownlm.model.folder import read_config
from ownlm.model.gguf.read import read_gguf
from ownlm.model.gguf.reader import GgufFile
from ownlm.model.gguf.write import write_gguf
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

SIZES = {"width": 64, "ffn": 96, "head_dim": 32, "heads": 2, "kv_heads": 1, "context": 128, "layers": 2}
LLAMA3 = Rope(10_000.0, kind="llama3", factor=8.0, original_context=32)
LLAMA = {"qk_norm": None, "tied_embeddings": False, "rope": LLAMA3}
GPT2 = {
    "norm": "layer", "norm_eps": 1e-5, "qk_norm": None, "gated": False, "qkv_bias": True, "output_bias": True,
    "ffn_bias": True, "kv_heads": 2, "activation": "gelu_tanh", "rope": None, "learned_positions": True,
}  # fmt: skip
PHI3 = {"qk_norm": None, "tied_embeddings": False, "rope": Rope(1000.0, share=0.75)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, and `model.gguf` in it."""
    save_model(tmp_path, tiny.decoder(**SIZES), tiny.tokenizer())
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    return tmp_path


def names_and_bits(folder: Path) -> dict[str, tuple[torch.dtype, bytes]]:
    tensors = load_file(folder / "model.safetensors")
    return {name: (each.dtype, each.contiguous().view(torch.uint8).numpy().tobytes()) for name, each in tensors.items()}


@pytest.mark.parametrize("file_type", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        pytest.param("qwen3", {}, id="qwen3"),
        pytest.param("llama", LLAMA, id="llama"),
        pytest.param("gpt2", GPT2, id="gpt2"),
        pytest.param("phi3", PHI3, id="phi3"),
    ],
)
def test_plain_numbers_keep_every_bit(model_type: str, changes: dict[str, Any], file_type: str, tmp_path: Path) -> None:
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[file_type]
    decoder = tiny.decoder(**{**SIZES, **changes})
    for name, parameter in decoder.named_parameters():
        if parameter.ndim > 1 and "embed_positions" not in name:
            parameter.data = parameter.data.to(dtype)
    there, back = tmp_path / "there", tmp_path / "back"
    save_model(there, decoder, tiny.tokenizer(), families()[model_type])
    write_gguf(there, tmp_path / "model.gguf", file_type)
    back.mkdir()
    read_gguf(tmp_path / "model.gguf", back)
    assert names_and_bits(back) == names_and_bits(there)
    assert read_config(back) == read_config(there)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        theirs, ours = (json.loads((place / name).read_text()) for place in (there, back))
        assert {**ours, "decoder": 0} == {**theirs, "decoder": 0}


def test_gemma_multiplies_by_the_same_numbers(tmp_path: Path) -> None:
    changes = {
        "norms": "both", "norm_offset": 1.0, "embedding_scale": 8.0, "activation": "gelu_tanh", "qk_norm": None,
        "attention_scale": 32**-0.5, "sliding_window": 16, "sliding_layers": (0,), "attention_softcap": 50.0,
        "logit_softcap": 30.0,
    }  # fmt: skip
    decoder = tiny.decoder(**{**SIZES, **changes})
    save_model(tmp_path, decoder, tiny.tokenizer(), families()["gemma2"])
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    read_gguf(tmp_path / "model.gguf", tmp_path)
    ids = tiny.random_ids(2, 40)
    assert torch.equal(load_model(tmp_path)(ids), decoder(ids))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "TQ2_0"])
def test_blocks_are_dequantised(kind: str, folder: Path) -> None:
    sizes = {**SIZES, "width": 256, "ffn": 256}
    save_model(folder, tiny.decoder(**sizes), tiny.tokenizer())
    write_gguf(folder, folder / "model.gguf", "f16")
    blocks = gguf.GGMLQuantizationType[kind]
    data = replace_tensor(folder / "model.gguf", "blk.0.ffn_up.weight", blocks)
    expected = torch.from_numpy(gguf.quants.dequantize(data, blocks))
    for dtype in (torch.float32, torch.float16):
        read_gguf(folder / "model.gguf", folder, dtype)
        found = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
        assert torch.equal(found, expected.to(dtype))
    assert GgufFile(folder / "model.gguf").types[kind.lower()] == 1


def replace_tensor(file: Path, name: str, kind: gguf.GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """Rewrites a file with random blocks in a tensor's place; their scales are small finite numbers."""
    reader = gguf.GGUFReader(file)
    old = file.rename(file.with_suffix(".old"))
    writer = gguf.GGUFWriter(file, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub)
    made = None
    for tensor in reader.tensors:
        data = tensor.data
        if tensor.name == name:
            rows, width = data.shape[0], int(tensor.shape[0])
            block, size = gguf.GGML_QUANT_SIZES[kind]
            random = np.random.default_rng(0).integers(0, 48, (rows, width // block * size), dtype=np.uint8)
            made = data = random
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type if made is not data else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    old.unlink()
    assert made is not None
    return made


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.999])
def test_a_file_cut_short_is_refused(share: float, folder: Path) -> None:
    file = folder / "model.gguf"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OwnLMError, match=r"model.gguf is no whole GGUF file \("):
        GgufFile(file)


def test_damaged_counts_are_refused_at_once(folder: Path) -> None:
    file = folder / "model.gguf"
    content = bytearray(file.read_bytes())
    place = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    content[place : place + 8] = (2**60).to_bytes(8, "little")
    file.write_bytes(content)
    with pytest.raises(OwnLMError, match="is no whole GGUF file"):
        GgufFile(file)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(OwnLMError, match="is no whole GGUF file .GGUF magic invalid"):
        GgufFile(tmp_path / "model.gguf")


def rewritten(file: Path, **changes: Any) -> Path:
    """A file with changed metadata (None: left out) and `more` of it, without the tensor `drop`, with the one `add`."""
    reader = gguf.GGUFReader(file)
    drop, add, more = changes.pop("drop", None), changes.pop("add", None), changes.pop("more", {})
    values = {name.replace("__", "."): value for name, value in changes.items()}
    name = values.pop("general.architecture", reader.fields["general.architecture"].contents())
    target = file.with_suffix(".changed.gguf")
    writer = gguf.GGUFWriter(target, name)
    for key, field in reader.fields.items():
        value = values.get(key, field.contents())
        if not key.startswith("GGUF.") and key != "general.architecture" and value is not None:
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, value, field.types[0], sub)
    for key, value in more.items():
        kinds = {bool: gguf.GGUFValueType.BOOL, float: gguf.GGUFValueType.FLOAT32, list: gguf.GGUFValueType.ARRAY}
        writer.add_key_value(key, value, kinds[type(value)])
    for tensor in reader.tensors:
        if tensor.name != drop:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if add:
        writer.add_tensor(add, np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "architecture 'mamba'; read here are gemma2, gemma3"),
        ({"qwen3__embedding_length": None}, "lacks the key qwen3.embedding_length"),
        ({"qwen3__embedding_length": 96}, "the tensor .* has shape"),
        ({"drop": "blk.1.ffn_up.weight"}, "it lacks blk.1.ffn_up.weight"),
        ({"add": "blk.1.attn_sinks.weight"}, "it has unexpected blk.1.attn_sinks.weight"),
        ({"tokenizer__ggml__model": "bert"}, "tokenizer of the kind 'bert'"),
        ({"tokenizer__ggml__pre": "viking"}, "in the way 'viking' of llama.cpp, which is not known here"),
        ({"tokenizer__ggml__eos_token_id": 4000}, "names special tokens outside its"),
    ],
)
def test_files_that_do_not_fit(changes: dict[str, Any], message: str, folder: Path) -> None:
    file = rewritten(folder / "model.gguf", **changes)
    (folder / "back").mkdir()
    with pytest.raises(OwnLMError, match=message):
        read_gguf(file, folder / "back")


def test_keys_that_change_the_computation_are_named(folder: Path) -> None:
    file = rewritten(folder / "model.gguf", more={"qwen3.logit_scale": 0.5, "qwen3.rope.scaling.finetuned": True})
    with pytest.raises(OwnLMError, match="has keys that are not understood here: qwen3.logit_scale"):
        GgufFile(file)
    GgufFile(rewritten(folder / "model.gguf", more={"qwen3.rope.scaling.finetuned": True}))


def test_windows_by_layer_as_newer_converters_write_them(tmp_path: Path) -> None:
    changes = {
        "norms": "both", "norm_offset": 1.0, "embedding_scale": 8.0, "activation": "gelu_tanh", "layers": 3,
        "attention_scale": 32**-0.5, "sliding_window": 16, "sliding_layers": (0, 1), "local_rope": Rope(10_000.0),
    }  # fmt: skip
    save_model(tmp_path, tiny.decoder(**{**SIZES, **changes}), tiny.tokenizer(), families()["gemma3_text"])
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    key = "gemma3.attention.sliding_window_pattern"
    file = rewritten(tmp_path / "model.gguf", more={key: [True, False, True]}, **{key.replace(".", "__"): None})
    assert GgufFile(file).config.sliding_layers == (0, 2)
