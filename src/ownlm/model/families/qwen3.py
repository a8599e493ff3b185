"""Qwen3: RMSNorm, rotary positions, normalised queries and keys, SwiGLU, grouped queries (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.qwen2 import read_upper_window, write_upper_window
from ownlm.model.families.shapes import below_model, read_llama_like, write_llama_like
from ownlm.model.families.stored import Stored, plain


class Qwen3:
    """The family of new models: transformers, vLLM and llama.cpp know it, so they open what is trained here."""

    model_type = "qwen3"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, kv_heads=32, head_dim=128)
        fields |= read_upper_window(keys, fields["layers"])
        bias = keys.flag("attention_bias", False)
        keys.close()
        return DecoderConfig(**fields, qk_norm="head", qkv_bias=bias, output_bias=bias)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """The `config.json` that transformers, vLLM and llama.cpp's converter read."""
        return {
            **write_llama_like(config, self.model_type, "Qwen3ForCausalLM"),
            **write_upper_window(config),
            "attention_bias": config.qkv_bias,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config))


family = Qwen3()
