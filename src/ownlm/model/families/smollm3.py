"""SmolLM3: Llama's shape with every fourth layer free of rotary positions (Yang et al. 2025, arXiv 2501.18795)."""

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
from ownlm.runtime.errors import OwnLMError


class SmolLM3:
    """In `no_rope_layers` a 1 stands for a layer with rotary positions."""

    model_type = "smollm3"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, theta=2e6, tied=True, kv_heads=4)
        layers = fields["layers"]
        interval = keys.integer("no_rope_layer_interval", 4)
        turning = keys.integers("no_rope_layers", [int((layer + 1) % interval != 0) for layer in range(layers)])
        if len(turning) != layers:
            raise OwnLMError(f"config.json has {len(turning)} no_rope_layers for {layers} layers.")
        used, window = keys.flag("use_sliding_window", False), keys.optional_integer("sliding_window")
        sliding = read_sliding(keys, layers, lambda layer: used and bool(window) and not turning[layer])
        bias = keys.flag("attention_bias", False)
        ffn_bias = keys.flag("mlp_bias", False)
        keys.ignore("max_window_layers")
        keys.close()
        return DecoderConfig(
            **fields, qk_norm=None, qkv_bias=bias, output_bias=bias, ffn_bias=ffn_bias,
            layers_without_rope=tuple(layer for layer, turns in enumerate(turning) if not turns),
            sliding_layers=sliding, sliding_window=(window or 0) if sliding else 0,
        )  # fmt: skip

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        return {
            **write_llama_like(config, self.model_type, "SmolLM3ForCausalLM"),
            "no_rope_layers": [int(layer not in config.layers_without_rope) for layer in range(config.layers)],
            "use_sliding_window": bool(config.sliding_layers),
            "sliding_window": config.sliding_window or None,
            "layer_types": write_layer_types(config),
            "attention_bias": config.qkv_bias,
            "mlp_bias": config.ffn_bias,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config))


family = SmolLM3()
