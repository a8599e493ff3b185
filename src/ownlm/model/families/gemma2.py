"""Gemma 2: norms on both sides, soft caps, windows in every other layer, scaled embeddings (arXiv 2408.00118)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import (
    below_model,
    read_llama_like,
    read_sliding,
    write_layer_types,
    write_llama_like,
)
from ownlm.model.families.stored import Stored, plain

PARTS = {
    "attn_norm": "input_layernorm", "attn_post_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "ffn_post_norm": "post_feedforward_layernorm",
}  # fmt: skip


def read_gemma(keys: Keys, theta: float) -> dict[str, Any]:
    """The fields that the second and third generation share."""
    fields = read_llama_like(
        keys, theta=theta, tied=True, kv_heads=4, head_dim=256,
        activation="hidden_activation", default_activation="gelu_pytorch_tanh",
    )  # fmt: skip
    keys.ignore("hidden_act")  # the older spelling; transformers computes what hidden_activation says
    keys.only("use_bidirectional_attention", False)
    bias = keys.flag("attention_bias", False)
    return fields | {
        "qkv_bias": bias,
        "output_bias": bias,
        "norms": "both",
        "norm_offset": 1.0,
        "embedding_scale": fields["width"] ** 0.5,
        "attention_scale": keys.number("query_pre_attn_scalar", 256) ** -0.5,
        "attention_softcap": keys.optional_number("attn_logit_softcapping"),
        "logit_softcap": keys.optional_number("final_logit_softcapping"),
    }


def write_gemma(config: DecoderConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The reverse of `read_gemma`, with the sliding layers."""
    data = write_llama_like(config, model_type, architecture)
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    return data | {
        "hidden_activation": data["hidden_act"],
        "attention_bias": config.qkv_bias,
        "query_pre_attn_scalar": _whole(scale**-2),
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        "sliding_window": config.sliding_window or None,
        "layer_types": write_layer_types(config),
    }


def _whole(value: float) -> float | int:
    """The whole number that rounding errors hide."""
    return round(value) if abs(value - round(value)) < 1e-6 else value


class Gemma2:
    """Every other layer, the first included, sees a window."""

    model_type = "gemma2"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_gemma(keys, theta=10_000.0)
        # An absent cap has the class' default; null means none.
        for key, field, default in (
            ("attn_logit_softcapping", "attention_softcap", 50.0),
            ("final_logit_softcapping", "logit_softcap", 30.0),
        ):
            if key not in data:
                fields[field] = default
        sliding = read_sliding(keys, fields["layers"], lambda layer: layer % 2 == 0)
        window = keys.integer("sliding_window", 4096)
        keys.close()
        return DecoderConfig(**fields, qk_norm=None, sliding_layers=sliding, sliding_window=window if sliding else 0)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        return write_gemma(config, self.model_type, "Gemma2ForCausalLM")

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config, PARTS))


family = Gemma2()
