"""What most families have in common: the keys of a Llama-like config, activations, sliding layers, and the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ownlm.model.config import Activation, DecoderConfig
from ownlm.model.families.keys import Keys
from ownlm.model.families.rope_keys import context_of, positions_of, read_rope, write_scaling
from ownlm.model.families.stored import renamed
from ownlm.runtime.errors import OwnLMError

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}  # fmt: skip
SPELLINGS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
PRE_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
"""The names of Llama and its relatives, where "post_attention" stands before the feed-forward."""


def read_activation(keys: Keys, key: str, default: str) -> Activation:
    """The activation that a key names."""
    name = keys.text(key, default)
    if name not in ACTIVATIONS:
        raise OwnLMError(f"{keys.where} has {key}={name!r}, which this decoder does not compute.")
    return ACTIVATIONS[name]


def read_llama_like(
    keys: Keys,
    *,
    theta: float = 10_000.0,
    share: float = 1.0,
    eps: float = 1e-6,
    tied: bool = False,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    activation: str = "hidden_act",
    default_activation: str = "silu",
) -> dict[str, Any]:
    """The fields of `DecoderConfig` that Llama and its relatives write under the same keys.

    The arguments are the family's defaults for keys that are absent, as transformers has them; where `kv_heads` and
    `head_dim` are null, or have no default, they follow from the other sizes.
    """
    width, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    size = keys.optional_integer("head_dim") or (None if "head_dim" in keys.data else head_dim)
    groups = keys.optional_integer("num_key_value_heads") or (None if "num_key_value_heads" in keys.data else kv_heads)
    rope = read_rope(keys, theta, share)
    return {
        "vocabulary": keys.integer("vocab_size"),
        "layers": keys.integer("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "kv_heads": groups or heads,
        "head_dim": size or width // max(1, heads),
        "ffn": keys.integer("intermediate_size"),
        "context": context_of(keys.integer("max_position_embeddings"), rope),
        "rope": rope,
        "norm_eps": keys.number("rms_norm_eps", eps),
        "activation": read_activation(keys, activation, default_activation),
        "tied_embeddings": keys.flag("tie_word_embeddings", tied),
    }


def write_llama_like(config: DecoderConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The reverse of `read_llama_like`, with its default keys."""
    rope = config.rope
    if rope is None:
        raise OwnLMError(f"A decoder without rotary positions cannot be written as {model_type}.")
    data = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": positions_of(config.context, rope),
        "rms_norm_eps": config.norm_eps,
        "rope_theta": rope.theta,
        "rope_scaling": write_scaling(rope),
        "tie_word_embeddings": config.tied_embeddings,
        "hidden_act": SPELLINGS[config.activation],
        "attention_dropout": 0.0,
    }
    if rope.share != 1.0:
        data["partial_rotary_factor"] = rope.share
    return data


def read_sliding(keys: Keys, layers: int, default: Callable[[int], bool]) -> tuple[int, ...]:
    """The layers that `layer_types` calls sliding; without that key those for which `default(layer)` holds."""
    kinds = keys.raw("layer_types")
    if kinds is None:
        return tuple(layer for layer in range(layers) if default(layer))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise OwnLMError(f"{keys.where} has layer_types={kinds!r}; it must be a list of {layers} kinds, one a layer.")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise OwnLMError(f"{keys.where} has {kind!r} in layer_types, which this decoder does not compute.")
    return tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention")


def write_layer_types(config: DecoderConfig) -> list[str]:
    """The value of `layer_types`."""
    sliding = set(config.sliding_layers)
    return ["sliding_attention" if layer in sliding else "full_attention" for layer in range(config.layers)]


def read_window_everywhere(keys: Keys, layers: int, default: int | None = None) -> dict[str, Any]:
    """`sliding_window` for all layers; null switches it off, an absent key means the family's default."""
    window = keys.optional_integer("sliding_window")
    if window is None and "sliding_window" not in keys.data:
        window = default
    return {"sliding_window": window, "sliding_layers": tuple(range(layers))} if window else {}


def below_model(config: DecoderConfig, parts: Mapping[str, str] = PRE_NORMS, prefix: str = "model") -> dict[str, str]:
    """Each parameter's name in the checkpoint: below `prefix`, except for the head."""
    names = renamed(config, parts)
    return {ours: name if ours.startswith("lm_head") else f"{prefix}.{name}" for ours, name in names.items()}
