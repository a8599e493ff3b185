"""Qwen2 and Qwen2.5: Llama's shape with biases on queries, keys and values (arXiv 2407.10671, 2412.15115)."""

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


def read_upper_window(keys: Keys, layers: int) -> dict[str, Any]:
    """Qwen's window: off unless `use_sliding_window`, and then in the layers from `max_window_layers` on."""
    window = read_optional_window(keys)
    first = keys.integer("max_window_layers", 28)
    sliding = read_sliding(keys, layers, lambda layer: bool(window) and layer >= first)
    return {"sliding_window": window, "sliding_layers": sliding} if sliding else {}


def read_optional_window(keys: Keys) -> int:
    """`sliding_window` where `use_sliding_window` is true, 4096 without that key; 0 where it is off or null."""
    window = keys.optional_integer("sliding_window") if "sliding_window" in keys.data else 4096
    return (window or 0) if keys.flag("use_sliding_window", False) else 0


def write_upper_window(config: DecoderConfig) -> dict[str, Any]:
    """The reverse of `read_upper_window`."""
    return {
        "use_sliding_window": bool(config.sliding_layers),
        "sliding_window": config.sliding_window or None,
        "max_window_layers": min(config.sliding_layers, default=config.layers),
        "layer_types": write_layer_types(config),
    }


class Qwen2:
    """As Llama, with biases where attention begins, and a sliding window in the upper layers if asked for."""

    model_type = "qwen2"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, kv_heads=32)
        fields |= read_upper_window(keys, fields["layers"])
        keys.only("use_mrope", False)
        keys.close()
        return DecoderConfig(**fields, qk_norm=None, qkv_bias=True)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        return {**write_llama_like(config, self.model_type, "Qwen2ForCausalLM"), **write_upper_window(config)}

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config))


family = Qwen2()
