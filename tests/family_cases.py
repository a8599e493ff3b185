"""Tiny random checkpoints of every family, made with transformers: the oracle of the families' tests.

Every weight matters: norms, biases and router are random too, the blocks are loud enough that greedy answers vary,
windows are shorter than the texts, and each rotary scaling bends within them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

VOCABULARY = 101
NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, **NO_ENDS,
}  # fmt: skip
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 128,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    **NO_ENDS,
}
NEOX_SIZES = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | {"num_attention_heads": 2}
TWO_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""Heads of 16: eight rotary planes."""
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LONG = [1.0, 1.5, 2.0, 3.0, 5.0, 6.0, 7.0, 9.0]
SHORT = [1.0, 1.1, 1.0, 1.2, 1.3, 1.0, 1.5, 1.1]
LONGROPE = {"rope_type": "longrope", "rope_theta": 1000.0, "short_factor": SHORT, "long_factor": LONG}


@dataclass(frozen=True)
class Case:
    """A checkpoint: `keys` of transformers' config of that `model_type`; texts of `lengths` tokens are compared.

    With tied embeddings many a tiny model repeats one token for ever; `seed` is one with which it does not.
    """

    name: str
    model_type: str
    keys: dict[str, Any] = field(repr=False)
    lengths: tuple[int, ...] = (40,)
    seed: int = 0

    def config(self) -> Any:
        """Transformers' config."""
        return CONFIG_MAPPING[self.model_type](**deepcopy(self.keys))  # it changes tables in place


def _case(
    name: str,
    model_type: str,
    sizes: dict[str, Any] = SIZES,
    lengths: tuple[int, ...] = (40,),
    seed: int = 0,
    **keys: Any,
) -> Case:
    return Case(name, model_type, {**sizes, **keys}, lengths, seed)


def _rope(name: str, *lengths: int, **table: Any) -> Case:
    return _case(name, "llama", {**SIZES, **TWO_HEADS}, lengths, rope_parameters=table)


EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
CASES = (
    _case("llama 2", "llama", num_key_value_heads=4, rms_norm_eps=1e-3),
    _case("llama 3", "llama", rope_parameters={"rope_type": "default", "rope_theta": 5e5}, head_dim=16),
    _case("llama 3.2", "llama", {**SIZES, **TWO_HEADS}, (24, 32, 33, 80), rope_parameters=LLAMA3,
          tie_word_embeddings=True),
    _case("llama with biases", "llama", attention_bias=True, mlp_bias=True, hidden_act="gelu"),
    _rope("rope default", 40, rope_type="default", rope_theta=100.0),
    _rope("rope linear", 24, 80, rope_type="linear", rope_theta=1000.0, factor=2.5),
    _case("rope dynamic", "llama", {**SIZES, **TWO_HEADS, "max_position_embeddings": 32}, (24, 32, 33, 80),
          rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 4.0}),
    _rope("rope yarn", 24, 33, 80, **YARN),
    _rope("rope yarn, attention factor", 80, **YARN, attention_factor=1.5, beta_fast=3.0, beta_slow=0.2),
    _rope("rope yarn, mscale", 80, **YARN, mscale=1.3, mscale_all_dim=0.5, beta_fast=3),
    _rope("rope yarn, not truncated", 80, **YARN, truncate=False, beta_fast=2.2),
    _rope("rope longrope", 24, 32, 33, 80, **LONGROPE, original_max_position_embeddings=32),
    _rope("rope longrope, factor", 80, **LONGROPE, original_max_position_embeddings=32, factor=3.0),
    _case("mistral", "mistral", sliding_window=7, head_dim=12),
    _case("mistral without window", "mistral", sliding_window=None, tie_word_embeddings=True),
    _case("mixtral", "mixtral", num_local_experts=5, num_experts_per_tok=2),
    _case("mixtral with a window", "mixtral", num_local_experts=3, num_experts_per_tok=1, sliding_window=9),
    _case("qwen 2", "qwen2", tie_word_embeddings=True),
    _case("qwen 2 with a window", "qwen2", num_hidden_layers=3, use_sliding_window=True, sliding_window=8,
          max_window_layers=1),
    _case("qwen 2 with yarn", "qwen2", {**SIZES, **TWO_HEADS}, (24, 80), rope_parameters=YARN),
    _case("qwen 3", "qwen3", head_dim=16, tie_word_embeddings=True),
    _case("qwen 3 with yarn", "qwen3", lengths=(24, 80), head_dim=16, rope_parameters=YARN, attention_bias=True),
    _case("qwen 3 with layer types", "qwen3", head_dim=16, num_hidden_layers=3, use_sliding_window=True,
          sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    _case("qwen 3 moe", "qwen3_moe", **EXPERTS, norm_topk_prob=True),
    _case("qwen 3 moe, plain shares", "qwen3_moe", **EXPERTS, num_hidden_layers=3, mlp_only_layers=[1],
          tie_word_embeddings=True),
    _case("qwen 3 moe, sparse", "qwen3_moe", **EXPERTS, num_hidden_layers=4, decoder_sparse_step=2,
          use_sliding_window=True, sliding_window=8),
    _case("gemma 2", "gemma2", seed=1, head_dim=16, num_hidden_layers=3, sliding_window=7, query_pre_attn_scalar=24,
          attn_logit_softcapping=3.0, final_logit_softcapping=0.5),
    _case("gemma 2 without caps", "gemma2", head_dim=8, sliding_window=7, query_pre_attn_scalar=8,
          attn_logit_softcapping=None, final_logit_softcapping=None, tie_word_embeddings=False),
    _case("gemma 3", "gemma3_text", {**SIZES, **TWO_HEADS}, (40, 80), head_dim=16, num_hidden_layers=4,
          sliding_window=7, query_pre_attn_scalar=24, sliding_window_pattern=3,
          rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
                           "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}),
    _case("gemma 3 with a cap", "gemma3_text", seed=7, head_dim=16, sliding_window=9, num_hidden_layers=3,
          final_logit_softcapping=0.5, attention_bias=True, query_pre_attn_scalar=16,
          layer_types=["full_attention", "sliding_attention", "full_attention"]),
    _case("olmo 2", "olmo2", rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    _case("olmo 2 with biases", "olmo2", seed=7, num_key_value_heads=4, attention_bias=True, tie_word_embeddings=True),
    _case("phi 3", "phi3", sliding_window=7),
    _case("phi 3 with longrope", "phi3", {**SIZES, **TWO_HEADS}, (24, 32, 33, 80), rope_parameters=LONGROPE,
          original_max_position_embeddings=32),
    _case("phi 4 mini", "phi3", {**SIZES, **TWO_HEADS}, (24, 80), tie_word_embeddings=True,
          original_max_position_embeddings=32,
          rope_parameters={**LONGROPE, "partial_rotary_factor": 0.75, "short_factor": SHORT[:6],
                           "long_factor": LONG[:6]}),
    _case("smollm 3", "smollm3", num_hidden_layers=4, no_rope_layer_interval=2),
    _case("smollm 3 with a window", "smollm3", num_hidden_layers=3, no_rope_layers=[1, 0, 1], use_sliding_window=True,
          sliding_window=8, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    _case("gpt 2", "gpt2", GPT2_SIZES),
    _case("gpt 2 scaled by layer", "gpt2", GPT2_SIZES, seed=5, scale_attn_by_inverse_layer_idx=True, n_inner=56,
          activation_function="relu", layer_norm_epsilon=1e-3),
    _case("gpt 2 not scaled", "gpt2", GPT2_SIZES, scale_attn_weights=False, tie_word_embeddings=False),
    _case("gpt neox", "gpt_neox", NEOX_SIZES),
    _case("gpt neox, one after the other", "gpt_neox", NEOX_SIZES,
          use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True,
          rope_parameters={"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5}),
    _case("gpt neox with linear rope", "gpt_neox", NEOX_SIZES, (24, 80),
          hidden_act="gelu_pytorch_tanh",
          rope_parameters={"rope_type": "linear", "rope_theta": 300.0, "factor": 2.0, "partial_rotary_factor": 1.0}),
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}
FAMILIES = {case.model_type: case for case in reversed(CASES)}
"""The first case of each family, by `model_type`."""


def make(case: Case, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of transformers, in evaluation mode."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_config(case.config(), attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(case.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                # Norms around what they begin with, biases around zero.
                parameter.add_(0.3 * drawn)
            elif name.endswith(("embed_tokens.weight", "wte.weight", "wpe.weight", "embed_in.weight")):
                # Beside loud embeddings the blocks would change nothing, and Gemma scales its own.
                parameter.copy_(drawn * (0.1 if case.model_type.startswith("gemma") else 0.3))
            else:
                inputs = parameter.shape[-2] if "Conv1D" in _kind(model, name) else parameter.shape[-1]
                parameter.copy_(2 * drawn * inputs**-0.5)
    return model.to(dtype)


def _kind(model: PreTrainedModel, parameter: str) -> str:
    return type(model.get_submodule(parameter.rpartition(".")[0])).__name__


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """`save_pretrained` into `folder`, which it returns."""
    model.save_pretrained(folder, **options)
    return folder


def opened(folder: Path, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    """What transformers reads from a folder; "auto" is the precision of the files."""
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()


@cache
def text(length: int, rows: int = 1) -> Tensor:
    """Random tokens `(rows, length)`; shorter texts are the beginnings of longer ones."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(VOCABULARY, (256, 4), generator=generator)[:length, :rows].T.contiguous()
