"""Qwen3-MoE: Qwen3 with a mixture of experts in some or all layers (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.families.keys import Keys
from ownlm.model.families.qwen2 import read_optional_window
from ownlm.model.families.shapes import PRE_NORMS, below_model, read_llama_like, write_llama_like
from ownlm.model.families.stored import Stored, plain
from ownlm.runtime.errors import OwnLMError


class Qwen3Moe:
    """Experts stand in every `decoder_sparse_step`-th layer, except for those in `mlp_only_layers`."""

    model_type = "qwen3_moe"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, kv_heads=4)
        layers = fields["layers"]
        keys.ignore("max_window_layers")
        if window := read_optional_window(keys):
            fields |= {"sliding_window": window, "sliding_layers": tuple(range(layers))}
        bias = keys.flag("attention_bias", False)
        count = keys.optional_integer("num_local_experts") or keys.integer("num_experts", 128)
        keys.ignore("num_experts")
        step, dense = keys.integer("decoder_sparse_step", 1), keys.integers("mlp_only_layers", [])
        with_experts = tuple(
            layer for layer in range(layers) if layer not in dense and count and (layer + 1) % max(1, step) == 0
        )
        active, ffn = keys.integer("num_experts_per_tok", 8), keys.integer("moe_intermediate_size", 768)
        renormalise = keys.flag("norm_topk_prob", False)
        keys.ignore("router_aux_loss_coef", "output_router_logits")
        keys.close()
        experts = Experts(count, active, ffn, with_experts, renormalise) if with_experts else None
        return DecoderConfig(**fields, qk_norm="head", qkv_bias=bias, output_bias=bias, experts=experts)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        experts = config.experts
        if experts is None:
            raise OwnLMError("A decoder without experts cannot be written as qwen3_moe.")
        return {
            **write_llama_like(config, self.model_type, "Qwen3MoeForCausalLM"),
            "use_sliding_window": bool(config.sliding_layers),
            "sliding_window": config.sliding_window or None,
            "attention_bias": config.qkv_bias,
            "num_experts": experts.count,
            "num_experts_per_tok": experts.active,
            "moe_intermediate_size": experts.ffn,
            "norm_topk_prob": experts.renormalise,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [layer for layer in range(config.layers) if layer not in experts.layers],
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config, {**PRE_NORMS, "router": "gate"}))


family = Qwen3Moe()
