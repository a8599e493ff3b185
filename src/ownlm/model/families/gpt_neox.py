"""GPT-NeoX and Pythia: LayerNorm, a quarter of each head rotary, attention beside feed-forward (arXiv 2204.06745)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.rope_keys import context_of, positions_of, read_rope, write_scaling
from ownlm.model.families.shapes import SPELLINGS, below_model, read_activation
from ownlm.model.families.stored import Stored, interleaved, plain
from ownlm.runtime.errors import OwnLMError

_PARTS = {
    "self_attn": "attention", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "o_proj": "dense", "up_proj": "dense_h_to_4h", "down_proj": "dense_4h_to_h", "norm": "final_layer_norm",
    "embed_tokens": "embed_in",
}  # fmt: skip


class GptNeoX:
    """Queries, keys and values of one head after the other lie in one tensor."""

    model_type = "gpt_neox"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        width, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
        if heads < 1 or width % heads:
            raise OwnLMError(f"config.json has hidden_size={width}, no multiple of its num_attention_heads={heads}.")
        rope = read_rope(keys, keys.number("rotary_emb_base", 10_000.0), keys.number("rotary_pct", 0.25))
        bias = keys.flag("attention_bias", True)
        keys.only("is_decoder", False, True)
        config = DecoderConfig(
            vocabulary=keys.integer("vocab_size"),
            layers=keys.integer("num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            ffn=keys.integer("intermediate_size"),
            context=context_of(keys.integer("max_position_embeddings"), rope),
            rope=rope,
            norm="layer",
            norm_eps=keys.number("layer_norm_eps", 1e-5),
            qk_norm=None,
            activation=read_activation(keys, "hidden_act", "gelu"),
            gated=False,
            qkv_bias=bias,
            output_bias=bias,
            ffn_bias=True,
            parallel_residual=keys.flag("use_parallel_residual", True),
            tied_embeddings=keys.flag("tie_word_embeddings", False),
        )
        keys.close()
        return config

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        rope = config.rope
        if rope is None:
            raise OwnLMError("A decoder without rotary positions cannot be written as gpt_neox.")
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": config.vocabulary,
            "hidden_size": config.width,
            "intermediate_size": config.ffn,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "max_position_embeddings": positions_of(config.context, rope),
            "rotary_pct": rope.share,
            "rotary_emb_base": rope.theta,
            "rope_scaling": write_scaling(rope),
            "layer_norm_eps": config.norm_eps,
            "hidden_act": SPELLINGS[config.activation],
            "attention_bias": config.qkv_bias,
            "use_parallel_residual": config.parallel_residual,
            "tie_word_embeddings": config.tied_embeddings,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        names = below_model(config, _PARTS, "gpt_neox")
        if "lm_head.weight" in names:
            names["lm_head.weight"] = "embed_out.weight"
        fused = []
        for layer in range(config.layers):
            for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
                parameters = [f"layers.{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"]
                name = f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}"
                fused.append(interleaved(name, parameters, config.heads))
                for parameter in parameters:
                    del names[parameter]
        return plain(names) + fused


family = GptNeoX()
