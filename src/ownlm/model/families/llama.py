"""Llama 2, 3, 3.1 and 3.2, and the many models in their shape (arXiv 2307.09288, 2407.21783)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import below_model, read_llama_like, write_llama_like
from ownlm.model.families.stored import Stored, plain


class Llama:
    """RMSNorm, rotary positions, SwiGLU; grouped queries from the second generation's largest on."""

    model_type = "llama"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys)
        bias = keys.flag("attention_bias", False)
        config = DecoderConfig(
            **fields, qk_norm=None, qkv_bias=bias, output_bias=bias, ffn_bias=keys.flag("mlp_bias", False)
        )
        keys.close()
        return config

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        return {
            **write_llama_like(config, self.model_type, "LlamaForCausalLM"),
            "attention_bias": config.qkv_bias,
            "mlp_bias": config.ffn_bias,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config))


family = Llama()
