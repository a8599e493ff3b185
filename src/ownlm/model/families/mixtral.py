"""Mixtral: Mistral with a mixture of experts in every layer (arXiv 2401.04088)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import (
    PRE_NORMS,
    below_model,
    read_llama_like,
    read_window_everywhere,
    write_llama_like,
)
from ownlm.model.families.stored import Stored, plain
from ownlm.runtime.errors import OwnLMError

_PARTS = {
    **PRE_NORMS, "mlp": "block_sparse_moe", "router": "gate", "gate_proj": "w1", "down_proj": "w2", "up_proj": "w3",
}  # fmt: skip


class Mixtral:
    """Two of eight experts a token, their weights made to sum to 1."""

    model_type = "mixtral"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        fields = read_llama_like(keys, theta=1e6, eps=1e-5, kv_heads=8)
        fields |= read_window_everywhere(keys, fields["layers"])
        count, active = keys.integer("num_local_experts", 8), keys.integer("num_experts_per_tok", 2)
        keys.ignore("router_aux_loss_coef", "output_router_logits", "router_jitter_noise")
        keys.close()
        experts = Experts(count, active, fields["ffn"], tuple(range(fields["layers"])))
        return DecoderConfig(**fields, qk_norm=None, experts=experts)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        if config.experts is None:
            raise OwnLMError("A decoder without experts cannot be written as mixtral.")
        return {
            **write_llama_like(config, self.model_type, "MixtralForCausalLM"),
            "sliding_window": config.sliding_window or None,
            "num_local_experts": config.experts.count,
            "num_experts_per_tok": config.experts.active,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config, _PARTS))


family = Mixtral()
