import pytest

import tiny
from ownlm.model.families.qwen3 import family
from ownlm.runtime.errors import OwnLMError


def test_a_config_comes_back() -> None:
    config = tiny.config(rope_theta=5e5, norm_eps=1e-5, tied_embeddings=False)
    assert family.read_config(family.write_config(config)) == config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("attention_dropout", 0.1),
        ("use_sliding_window", True),
        ("sliding_window", 4096),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}),
        ("rope_parameters", {"rope_theta": 1e6, "partial_rotary_factor": 0.5}),
        ("num_experts", 8),
        ("quantization_config", {"quant_method": "awq"}),
    ],
)
def test_what_changes_the_computation_is_refused_and_named(key: str, value: object) -> None:
    with pytest.raises(OwnLMError, match=key.replace("rope_parameters", "rope_")):
        family.read_config({**family.write_config(tiny.config()), key: value})


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"])
def test_a_missing_size_is_named(key: str) -> None:
    data = family.write_config(tiny.config())
    del data[key]
    with pytest.raises(OwnLMError, match=f"lacks the key {key}"):
        family.read_config(data)


def test_defaults_are_those_of_transformers() -> None:
    from transformers import Qwen3Config

    theirs = Qwen3Config()
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    data = {key: getattr(theirs, key) for key in (*sizes, "max_position_embeddings", "num_key_value_heads")}
    config = family.read_config(data)
    assert config.head_dim == theirs.head_dim
    assert config.norm_eps == theirs.rms_norm_eps
    assert config.rope_theta == theirs.rope_parameters["rope_theta"]
    assert config.tied_embeddings == theirs.tie_word_embeddings


def test_a_decoder_of_another_shape_is_not_written_as_qwen3() -> None:
    with pytest.raises(OwnLMError, match="not Qwen3-shaped"):
        family.write_config(tiny.config(qk_norm=False))
