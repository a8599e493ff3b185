"""Mistral: Llama's shape with attention to a sliding window in every layer (arXiv 2310.06825)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import below_model, read_llama_like, read_window_everywhere, write_llama_like
from ownlm.model.families.stored import Stored, plain


class Mistral:
    """The window is off where the config says null."""

    model_type = "mistral"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, kv_heads=8)
        fields |= read_window_everywhere(keys, fields["layers"], 4096)
        keys.close()
        return DecoderConfig(**fields, qk_norm=None)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        window = config.sliding_window or None
        return {**write_llama_like(config, self.model_type, "MistralForCausalLM"), "sliding_window": window}

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config))


family = Mistral()
