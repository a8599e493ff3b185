"""GPT-2: LayerNorm, learnt positions, GELU, biases everywhere (Radford et al. 2019)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.shapes import SPELLINGS, below_model, read_activation
from ownlm.model.families.stored import Stored, plain, rows, transposed
from ownlm.runtime.errors import OwnLMError

_PARTS = {
    "layers": "h", "self_attn": "attn", "attn_norm": "ln_1", "ffn_norm": "ln_2", "o_proj": "c_proj",
    "up_proj": "c_fc", "down_proj": "c_proj", "norm": "ln_f", "embed_tokens": "wte", "embed_positions": "wpe",
}  # fmt: skip
_MATRICES = ("o_proj.weight", "up_proj.weight", "down_proj.weight")


class Gpt2:
    """Its matrices are stored transposed, queries, keys and values side by side."""

    model_type = "gpt2"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        keys = Keys(data)
        width, heads = keys.integer("n_embd"), keys.integer("n_head")
        if heads < 1 or width % heads:
            raise OwnLMError(f"config.json has n_embd={width}, no multiple of its n_head={heads}.")
        keys.only("add_cross_attention", False)
        keys.ignore("n_ctx", "reorder_and_upcast_attn")  # the latter: the same, in fp32
        keys.ignore(*(key for key in data if key.startswith("summary_")))
        config = DecoderConfig(
            vocabulary=keys.integer("vocab_size"),
            layers=keys.integer("n_layer"),
            width=width,
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            ffn=keys.optional_integer("n_inner") or 4 * width,
            context=keys.integer("n_positions"),
            rope=None,
            learned_positions=True,
            norm="layer",
            norm_eps=keys.number("layer_norm_epsilon", 1e-5),
            qk_norm=None,
            activation=read_activation(keys, "activation_function", "gelu_new"),
            gated=False,
            qkv_bias=True,
            output_bias=True,
            ffn_bias=True,
            tied_embeddings=keys.flag("tie_word_embeddings", True),
            attention_scale=None if keys.flag("scale_attn_weights", True) else 1.0,
            scale_by_layer=keys.flag("scale_attn_by_inverse_layer_idx", False),
        )
        keys.close()
        return config

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """See `Family.write_config`."""
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": self.model_type,
            "vocab_size": config.vocabulary,
            "n_positions": config.context,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_inner": config.ffn,
            "activation_function": {**SPELLINGS, "gelu_tanh": "gelu_new"}[config.activation],
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": config.tied_embeddings,
            "scale_attn_weights": config.attention_scale is None,
            "scale_attn_by_inverse_layer_idx": config.scale_by_layer,
        }

    def tensors(self, config: DecoderConfig) -> list[Stored]:
        """See `Family.tensors`."""
        names = below_model(config, _PARTS, "transformer")
        fused = []
        for layer in range(config.layers):
            for kind in ("weight", "bias"):
                parameters = [f"layers.{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"]
                sizes = (config.width,) * 3
                fused.append(
                    rows(f"transformer.h.{layer}.attn.c_attn.{kind}", parameters, sizes, turned=kind == "weight")
                )
                for name in parameters:
                    del names[name]
        turned = [transposed(theirs, ours) for ours, theirs in names.items() if ours.endswith(_MATRICES)]
        kept = plain({ours: theirs for ours, theirs in names.items() if not ours.endswith(_MATRICES)})
        return kept + turned + fused


family = Gpt2()
