"""GGUF files, judged by llama.cpp: the same greedy tokens as the engine's decoder."""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

import tiny
from llama_cpp import STEPS, LlamaCpp, greedy, learn_by_heart, round_to, until_close
from ownlm.model.config import Experts
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.families import families
from ownlm.model.files import save_model
from ownlm.model.gguf.precision import TYPES
from ownlm.model.gguf.write import Written, write_gguf
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

SIZES = {"width": 64, "ffn": 96, "head_dim": 32, "heads": 2, "kv_heads": 1, "context": 128, "layers": 2}
LLAMA = {"qk_norm": None, "tied_embeddings": False}
GEMMA = {
    "norms": "both", "norm_offset": 1.0, "embedding_scale": 8.0, "activation": "gelu_tanh",
    "attention_scale": 32**-0.5, "sliding_window": 16, "sliding_layers": (0,),
}  # fmt: skip
GEMMA2 = {**GEMMA, "qk_norm": None, "attention_softcap": 50.0, "logit_softcap": 30.0}
GEMMA3 = {**GEMMA, "local_rope": Rope(500.0)}
GPT = {
    "norm": "layer", "norm_eps": 1e-5, "qk_norm": None, "gated": False, "qkv_bias": True, "output_bias": True,
    "ffn_bias": True, "kv_heads": 2,
}  # fmt: skip
NEOX = {**GPT, "activation": "gelu", "rope": Rope(10_000.0, 0.25), "tied_embeddings": False}
YARN = Rope(1000.0, kind="yarn", factor=4.0, original_context=32, attention_factor=0.1 * math.log(4.0) + 1)
LONG = Rope(
    1000.0, kind="longrope", original_context=300, attention_factor=1.19,
    short_factors=tuple(1 + i / 10 for i in range(16)), long_factors=tuple(2.0 + i for i in range(16)),
)  # fmt: skip
LLAMA3 = Rope(10_000.0, kind="llama3", factor=8.0, original_context=32)

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "qwen3, linear": ("qwen3", {"rope": Rope(1000.0, kind="linear", factor=4.0)}),
    "qwen3, yarn, untied": ("qwen3", {"rope": YARN, "tied_embeddings": False}),
    "qwen2": ("qwen2", {**LLAMA, "qkv_bias": True, "tied_embeddings": True}),
    "qwen3 moe": ("qwen3_moe", {"experts": Experts(4, 2, 64, (0, 1))}),
    "llama": ("llama", {**LLAMA, "heads": 4, "head_dim": 16, "kv_heads": 2}),
    "llama 3.1": ("llama", {**LLAMA, "rope": LLAMA3}),
    "llama, own llama3 RoPE": ("llama", {**LLAMA, "rope": Rope(5e3, 1.0, "llama3", 6.0, 50, low_freq_factor=2.0)}),
    "llama, biases, yarn": (
        "llama", {**LLAMA, "qkv_bias": True, "output_bias": True, "ffn_bias": True, "rope": YARN},
    ),
    "mistral": ("mistral", {**LLAMA, "sliding_window": 80, "sliding_layers": (0, 1)}),
    "mixtral": ("mixtral", {**LLAMA, "experts": Experts(4, 2, 96, (0, 1))}),
    "gemma 2": ("gemma2", GEMMA2),
    "gemma 3": ("gemma3_text", {**GEMMA3, "rope": Rope(1000.0, kind="linear", factor=8.0)}),
    "gemma 3, published pattern": ("gemma3_text", {**GEMMA3, "layers": 7, "sliding_layers": (0, 1, 2, 3, 4, 6)}),
    "olmo 2": ("olmo2", {**LLAMA, "norms": "post", "qk_norm": "full"}),
    "olmo 2, tied": ("olmo2", {"norms": "post", "qk_norm": "full"}),
    "phi 3": ("phi3", {**LLAMA, "rope": Rope(1000.0, share=0.75)}),
    "phi 3, longrope": ("phi3", {**LLAMA, "rope": LONG, "context": 600}),
    "smollm 3": ("smollm3", {**LLAMA, "layers": 5, "layers_without_rope": (3,)}),
    "gpt 2": ("gpt2", {**GPT, "activation": "gelu_tanh", "rope": None, "learned_positions": True}),
    "gpt neox": ("gpt_neox", {**NEOX, "parallel_residual": True}),
    "gpt neox, one after the other": ("gpt_neox", NEOX),
}  # fmt: skip
PROMPT = "def add(first, second):\n"


def loud(name: str, seed: int = 2) -> Decoder:
    """Random weights whose greedy answers vary; behind norms on both sides a block must be louder still."""
    decoder = tiny.decoder(seed, **{**SIZES, **MODELS[name][1]})
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if "post_norm" in key and decoder.config.norm_offset:
                parameter.add_(6.0)
    return decoder


def write(decoder: Decoder, model_type: str, folder: Path, file_type: str) -> tuple[Path, Written]:
    save_model(folder, decoder, tiny.tokenizer(), families()[model_type])
    return folder / "model.gguf", write_gguf(folder, folder / "model.gguf", file_type, name="tiny", licence="MIT")


def same_tokens(decoder: Decoder, file: Path, prompt: list[int]) -> list[int]:
    """Compares 48 greedy tokens, up to the first close choice; returns those that were compared."""
    ends = (tiny.tokenizer().end_of_text, tiny.tokenizer().end_of_turn)
    expected, gaps = greedy(decoder, prompt, ends)
    found = LlamaCpp(file).greedy(prompt)
    compared = until_close(expected, gaps)
    assert found[: len(compared)] == compared
    assert len(found) == STEPS
    return compared


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_the_same(name: str, tmp_path: Path) -> None:
    decoder = loud(name)
    file, _ = write(decoder, MODELS[name][0], tmp_path, "f32")
    compared = same_tokens(decoder, file, tiny.tokenizer().encode(PROMPT))
    assert len(compared) >= 10 and len(set(compared)) >= 3  # else it would show nothing


@cache
def learned(name: str) -> Decoder:
    """A model that knows the tiny sentences by heart: its choices are clear in every type."""
    decoder = Decoder(tiny.config(**{**SIZES, "ffn": 128, **MODELS[name][1]}))
    initialise(decoder, 0)
    return learn_by_heart(decoder, tiny.tokenizer().encode("".join(tiny.SENTENCES)))


@pytest.mark.parametrize("file_type", TYPES)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma 3"])
def test_every_type(name: str, file_type: str, tmp_path: Path) -> None:
    decoder = round_to(copy.deepcopy(learned(name)), file_type)
    file, written = write(learned(name), MODELS[name][0], tmp_path, file_type)
    assert file_type in written.tensors
    compared = same_tokens(decoder, file, tiny.tokenizer().encode(PROMPT)[:4])
    assert len(compared) == STEPS
    assert "The quick brown fox jumps over the lazy dog" in tiny.tokenizer().decode(compared)


def kinds(file: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}


def test_which_tensor_gets_which_type(tmp_path: Path) -> None:
    decoder = tiny.decoder(**{**SIZES, **MODELS["qwen3 moe"][1], "experts": Experts(2, 1, 48, (0, 1))})
    file, written = write(decoder, "qwen3_moe", tmp_path, "q4_0")
    found = kinds(file)
    assert found["blk.0.attn_q.weight"] == found["blk.0.ffn_gate_exps.weight"] == "Q4_0"
    assert found["blk.0.ffn_down_exps.weight"] == "F16"  # rows of 48 are no whole number of blocks
    assert found["blk.0.ffn_gate_inp.weight"] == found["blk.0.attn_norm.weight"] == found["output_norm.weight"] == "F32"
    assert found["token_embd.weight"] == "Q8_0"
    assert written.tensors == {"q4_0": 12, "f16": 2, "f32": 11, "q8_0": 1}


def test_metadata(tmp_path: Path) -> None:
    file, _ = write(loud("qwen3"), "qwen3", tmp_path, "f16")
    fields = {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}
    assert fields["general.name"] == "tiny"
    assert fields["general.license"] == "MIT"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert fields["qwen3.context_length"] == 128
    assert fields["tokenizer.ggml.eos_token_id"] == tiny.tokenizer().end_of_turn
    # Without this llama.cpp would take token 11 for the beginning of a text.
    assert fields["tokenizer.ggml.bos_token_id"] == tiny.tokenizer().end_of_text
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"].startswith("{%- for message in messages %}")


def test_context_ends_where_llama_cpp_would_differ(tmp_path: Path) -> None:
    _, mistral = write(loud("mistral"), "mistral", tmp_path / "mistral", "f32")
    assert mistral.context == 80
    assert "no sliding windows" in mistral.notes[0]
    _, phi = write(loud("phi 3, longrope"), "phi3", tmp_path / "phi", "f32")
    assert phi.context == 300
    assert "longrope" in phi.notes[0]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("qwen3", {"rope": Rope(1000.0, kind="dynamic", factor=2.0, original_context=64)}, "'dynamic'"),
        ("qwen3", {"rope": LLAMA3}, "'llama3', which llama.cpp has not in qwen3"),
        ("qwen3", {"rope": Rope(1000.0, share=0.5)}, "rotary positions in 50% of each head"),
        ("qwen3", {"qkv_bias": True, "output_bias": True}, "qkv_bias=True"),
        ("llama", {"rope": Rope(1000.0, kind="yarn", factor=4.0, original_context=32)}, "attention_factor"),
        ("smollm 3", {"layers_without_rope": (1,)}, "layers_without_rope=(1,) (but (3,))"),
        ("qwen3 moe", {"experts": Experts(4, 2, 64, (0, 1), renormalise=False)}, "renormalise"),
        ("qwen3 moe", {"experts": Experts(4, 2, 64, (1,))}, "layers with and without experts"),
        ("gemma 2", {"attention_scale": 0.5}, "attention_scale=0.5"),
        ("gemma 2", {"logit_softcap": None}, "logit_softcap=None"),
        ("gemma 3", {"attention_softcap": 50.0}, "attn_logit_softcapping=50.0"),
        ("gemma 3", {"layers": 4, "sliding_layers": (1,)}, "sliding_layers=(1,)"),
        ("phi 3", {"head_dim": 16}, "2 heads of 16 beside a width of 64"),
        ("gpt 2", {"scale_by_layer": True}, "scale_by_layer=True"),
    ],
)
def test_what_llama_cpp_lacks_is_refused(name: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model_type, shape = MODELS[name]
    decoder = tiny.decoder(**{**SIZES, **shape, **changes})
    with pytest.raises(OwnLMError) as error:
        write(decoder, model_type, tmp_path, "f32")
    assert reason in str(error.value)
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(("file_type", "reason"), [("q4_k", "can be read here, not written"), ("int3", "is no type")])
def test_other_types_are_refused(file_type: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(OwnLMError, match=f"--type {file_type} {reason}.*f32, f16, bf16, q8_0, q4_0"):
        write(loud("qwen3"), "qwen3", tmp_path, file_type)


def test_numbers_beyond_fp16_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    decoder = loud("qwen3")
    with torch.no_grad():
        decoder.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    (tmp_path / "model.gguf").write_text("old")
    with pytest.raises(OwnLMError, match="blk.0.ffn_up.weight holds numbers beyond fp16's 65504"):
        write(decoder, "qwen3", tmp_path, "f16")
    assert (tmp_path / "model.gguf").read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_name_that_would_mislead_llama_cpp(tmp_path: Path) -> None:
    decoder = loud("qwen3")
    save_model(tmp_path, decoder, tiny.tokenizer())
    write_gguf(tmp_path, tmp_path / "model.gguf", "f32", name="my-Phi-3-tune")
    same_tokens(decoder, tmp_path / "model.gguf", tiny.tokenizer().encode(PROMPT))
