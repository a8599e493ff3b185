"""Gemma 3 (text): Gemma 2 with normalised queries and keys, and two kinds of rotary positions (arXiv 2503.19786)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.gemma2 import PARTS, read_gemma, write_gemma
from ownlm.model.families.keys import Keys
from ownlm.model.families.rope_keys import context_of, rope_of
from ownlm.model.families.shapes import below_model, read_sliding
from ownlm.model.families.stored import Stored, plain
from ownlm.runtime.errors import OwnLMError

GLOBAL, LOCAL = "full_attention", "sliding_attention"


class Gemma3:
    """Five sliding layers to a full one; `rope_scaling` stretches the full ones only."""

    model_type = "gemma3_text"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        nested = data.get("rope_parameters")
        by_kind = isinstance(nested, dict) and bool({GLOBAL, LOCAL} & set(nested))
        if nested and not by_kind:
            raise OwnLMError(f"config.json has rope_parameters={nested!r}; it must have tables {GLOBAL} and {LOCAL}.")
        keys = Keys({key: value for key, value in data.items() if not (by_kind and key == "rope_parameters")})
        fields = read_gemma(keys, theta=1e6)
        local_theta = keys.number("rope_local_base_freq", 10_000.0)
        context = keys.integer("max_position_embeddings")
        fields["local_rope"] = rope_of(None, local_theta, 1.0, context)
        if by_kind and isinstance(nested, dict):
            whole = nested.get(GLOBAL) or {}
            if isinstance(whole, dict):
                whole = {**whole, **(data.get("rope_scaling") or {})}
            tables = Keys({**nested, GLOBAL: whole}, "config.json's rope_parameters")
            fields["rope"] = rope_of(tables.table(GLOBAL), fields["rope"].theta, 1.0, context)
            fields["local_rope"] = rope_of(tables.table(LOCAL), local_theta, 1.0, context)
            fields["context"] = context_of(context, fields["rope"])
            tables.close()
        keys.only("attn_logit_softcapping")  # transformers ignores it here, others apply it
        pattern = keys.integer("sliding_window_pattern", 6)
        keys.ignore("_sliding_window_pattern")
        sliding = read_sliding(keys, fields["layers"], lambda layer: (layer + 1) % pattern != 0)
        window = keys.integer("sliding_window", 4096)
        keys.close()
        return DecoderConfig(**fields, qk_norm="head", sliding_layers=sliding, sliding_window=window if sliding else 0)

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        local = config.local_rope
        if local is None or local.kind != "default":
            raise OwnLMError("Only a decoder with plain rotary positions in its sliding layers is Gemma-3-shaped.")
        data = write_gemma(config, self.model_type, "Gemma3ForCausalLM")
        return data | {"rope_local_base_freq": local.theta}

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        return plain(below_model(config, PARTS))


family = Gemma3()
