"""Qwen3: RMSNorm, rotary positions, normalised queries and keys, SwiGLU, grouped queries (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.runtime.errors import OwnLMError

# Keys that say nothing about the computation, or say only what another key says already.
_HARMLESS = {
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "bos_token_id", "eos_token_id",
    "pad_token_id", "initializer_range", "use_cache", "max_window_layers", "_name_or_path",
}  # fmt: skip
# Keys whose other values the decoder does not compute.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "attention_dropout": (0, 0.0),
    "use_sliding_window": (False,),
    "sliding_window": (None,),
    "rope_scaling": (None,),
}
_READ = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_parameters", "tie_word_embeddings",
    "layer_types",
}  # fmt: skip


class Qwen3:
    """The family of new models: transformers, vLLM and llama.cpp know it, so they open what is trained here."""

    model_type = "qwen3"

    def read_config(self, data: dict[str, Any]) -> DecoderConfig:
        """See `Family.read_config`."""
        for key, allowed in _REQUIRED.items():
            if key in data and data[key] not in allowed:
                raise OwnLMError(f"config.json has {key}={data[key]!r}, which this decoder does not compute.")
        unknown = sorted(set(data) - _HARMLESS - _READ - set(_REQUIRED))
        if unknown:
            raise OwnLMError(f"config.json has keys that are not understood here: {', '.join(unknown)}.")
        if any(kind != "full_attention" for kind in data.get("layer_types") or ()):
            raise OwnLMError(
                "config.json has layer_types other than full_attention, which this decoder does not compute."
            )
        rope = data.get("rope_parameters") or {}
        if rope.get("rope_type", "default") != "default":
            raise OwnLMError(f"config.json has rope_type={rope['rope_type']!r}, which this decoder does not compute.")
        if unknown := sorted(set(rope) - {"rope_type", "rope_theta"}):
            raise OwnLMError(f"config.json has rope_parameters that are not understood here: {', '.join(unknown)}.")
        try:
            return DecoderConfig(
                vocabulary=data["vocab_size"],
                layers=data["num_hidden_layers"],
                width=data["hidden_size"],
                heads=data["num_attention_heads"],
                kv_heads=data.get("num_key_value_heads") or data["num_attention_heads"],
                head_dim=data.get("head_dim") or 128,  # transformers' default
                ffn=data["intermediate_size"],
                context=data["max_position_embeddings"],
                rope_theta=float(rope.get("rope_theta") or data.get("rope_theta") or 10_000.0),
                norm_eps=data.get("rms_norm_eps", 1e-6),
                qk_norm=True,
                tied_embeddings=data.get("tie_word_embeddings", False),
            )
        except KeyError as error:
            raise OwnLMError(f"config.json lacks the key {error.args[0]}.") from None

    def write_config(self, config: DecoderConfig) -> dict[str, Any]:
        """The `config.json` that transformers, vLLM and llama.cpp's converter read."""
        if not config.qk_norm:
            raise OwnLMError("A decoder without normalised queries and keys is not Qwen3-shaped.")
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": config.vocabulary,
            "hidden_size": config.width,
            "intermediate_size": config.ffn,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_dim,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            "rope_theta": config.rope_theta,
            "rope_scaling": None,
            "tie_word_embeddings": config.tied_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "sliding_window": None,
            "torch_dtype": "float32",
        }

    def foreign_name(self, name: str) -> str:
        """`lm_head.weight` stands alone, everything else below `model.`."""
        return "lm_head.weight" if name == "lm_head" else f"model.{name}"


family = Qwen3()
