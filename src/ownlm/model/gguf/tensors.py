"""How a GGUF file holds the decoder's parameters: llama.cpp's names and layouts.

The names are those of https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ownlm.model.config import DecoderConfig
from ownlm.model.families.stored import Stored, renamed, rows

NAMES = {
    "layers": "blk", "embed_tokens": "token_embd", "embed_positions": "position_embd", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "attn_post_norm": "post_attention_norm", "ffn_post_norm": "post_ffw_norm", "norm": "output_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.router": "ffn_gate_inp",
}  # fmt: skip


def gguf_tensors(
    config: DecoderConfig, *, interleaved: bool = False, fused_qkv: bool = False, fused_gate: bool = False
) -> list[Stored]:
    """Every tensor of a GGUF file, in the order of the layers.

    - `interleaved`: queries and keys are stored for rotary planes of neighbours (2i, 2i + 1), where the decoder turns
      (i, i + head_dim/2).
    - `fused_qkv`: queries, keys and values lie in one tensor, one below the other; `fused_gate`: so do gate and up.
    - A norm's weight is stored with its offset added: what is multiplied in the end.
    - The experts' matrices of a layer are stacked to one tensor `(experts, outputs, inputs)`.
    """
    found: dict[str, list[str]] = {}
    for ours, name in renamed(config, NAMES).items():
        found.setdefault(_shared(name, fused_qkv, fused_gate), []).append(ours)
    return [_stored(config, name, parameters, interleaved) for name, parameters in found.items()]


def _shared(name: str, fused_qkv: bool, fused_gate: bool) -> str:
    """The name of the tensor that a parameter shares with others, or its own."""
    parts = name.split(".")
    if fused_qkv and parts[-2] in ("attn_q", "attn_k", "attn_v"):
        parts[-2] = "attn_qkv"
    if fused_gate and parts[-2] == "ffn_gate":
        parts[-2] = "ffn_up"
    if "experts" in parts:  # blk.0.mlp.experts.3.up_proj.weight
        kind = parts[-2].removesuffix("_proj")
        return f"blk.{parts[1]}.ffn_{kind}_exps.{parts[-1]}"
    return ".".join(parts)


def _stored(config: DecoderConfig, name: str, parameters: list[str], interleaved: bool) -> Stored:
    part = name.split(".")[-2]
    if "_exps." in name:
        return Stored(
            name, tuple(parameters), lambda whole: whole.unbind(0), lambda tensors: torch.stack(list(tensors))
        )
    if part == "attn_qkv":
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        return rows(name, parameters, (queries, keys, keys))
    if part == "ffn_up" and len(parameters) > 1:
        return rows(name, parameters, (config.ffn, config.ffn))
    if interleaved and part in ("attn_q", "attn_k"):
        return _neighbours(name, parameters[0], config.heads if part == "attn_q" else config.kv_heads)
    if part.endswith("norm") and config.norm_offset:
        return _shifted(name, parameters[0], config.norm_offset)
    return Stored(name, tuple(parameters))


def _neighbours(name: str, parameter: str, heads: int) -> Stored:
    """Rows (or biases) of each head in the order 0, half, 1, half + 1, ..."""

    def join(tensors: Sequence[Tensor]) -> Tensor:
        tensor = tensors[0]
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    def split(tensor: Tensor) -> Sequence[Tensor]:
        return (tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape),)

    return Stored(name, (parameter,), split, join)


def _shifted(name: str, parameter: str, offset: float) -> Stored:
    """A norm's weight plus its offset, in fp32: the very number that the norm multiplies with."""
    return Stored(name, (parameter,), lambda tensor: (tensor - offset,), lambda tensors: tensors[0].float() + offset)
