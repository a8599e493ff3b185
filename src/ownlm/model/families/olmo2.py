"""OLMo 2: norms after attention and feed-forward only, and over all queries and all keys (arXiv 2501.00656)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import below_model, read_llama_like, write_llama_like
from ownlm.model.families.stored import Stored, plain

_PARTS = {"attn_post_norm": "post_attention_layernorm", "ffn_post_norm": "post_feedforward_layernorm"}


class Olmo2:
    """Fully open, data included."""

    model_type = "olmo2"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, eps=1e-5)
        bias = keys.flag("attention_bias", False)
        keys.close()
        return DecoderConfig(**fields, norms="post", qk_norm="full", qkv_bias=bias, output_bias=bias)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        data = write_llama_like(config, self.model_type, "Olmo2ForCausalLM")
        return data | {"attention_bias": config.qkv_bias}

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config, _PARTS))


family = Olmo2()
