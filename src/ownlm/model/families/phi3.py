"""Phi-3, Phi-3.5 and Phi-4: Llama's shape, fused matrices, longrope (arXiv 2404.14219)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import below_model, read_llama_like, read_window_everywhere, write_llama_like
from ownlm.model.families.stored import Stored, plain, rows


class Phi3:
    """Queries, keys and values lie in one tensor, gate and up in another."""

    model_type = "phi3"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys({"original_max_position_embeddings": 4096, **data})
        fields = read_llama_like(keys, eps=1e-5)
        fields |= read_window_everywhere(keys, fields["layers"])
        for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
            keys.only(key, False)
        for key in ("full_attn_mod", "interpolate_factor"):
            keys.only(key, 1)
        keys.close()
        return DecoderConfig(**fields, qk_norm=None)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        data = write_llama_like(config, self.model_type, "Phi3ForCausalLM")
        if config.rope is not None and config.rope.original_context:
            data["original_max_position_embeddings"] = config.rope.original_context
        return data | {"sliding_window": config.sliding_window or None}

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        names = below_model(config)
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        fused = []
        for layer in range(config.layers):
            attention, mlp = f"layers.{layer}.self_attn", f"layers.{layer}.mlp"
            qkv = [f"{attention}.{part}_proj.weight" for part in "qkv"]
            gate_up = [f"{mlp}.{part}_proj.weight" for part in ("gate", "up")]
            fused.append(rows(f"model.{attention}.qkv_proj.weight", qkv, (queries, keys, keys)))
            fused.append(rows(f"model.{mlp}.gate_up_proj.weight", gate_up, (config.ffn, config.ffn)))
            for name in (*qkv, *gate_up):
                del names[name]
        return plain(names) + fused


family = Phi3()
