"""The family of new models, and how a decoder finds the family in whose files it can be written."""

import json
from pathlib import Path

import pytest

import tiny
from family_cases import CASES, Case
from ownlm.model.decoder import Decoder
from ownlm.model.families import families, family_for
from ownlm.model.families.qwen3 import family
from ownlm.model.files import save_weights
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError


@pytest.mark.parametrize(
    "changes",
    [
        {"rope": Rope(5e5), "norm_eps": 1e-5, "tied_embeddings": False},
        {"sliding_window": 8, "sliding_layers": (0,), "qkv_bias": True, "output_bias": True},
        {"rope": Rope(1e4, 0.5, "linear", 2.0)},
    ],
)
def test_a_config_comes_back(changes: dict[str, object]) -> None:
    config = tiny.config(**changes)
    assert family.read_config(family.write_config(config)) == config


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"])
def test_a_missing_size_is_named(key: str) -> None:
    data = family.write_config(tiny.config())
    del data[key]
    with pytest.raises(OwnLMError, match=f"lacks the key {key}"):
        family.read_config(data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"qk_norm": None}, "qk_norm is None"),
        ({"gated": False}, "gated is False"),
        ({"logit_softcap": 30.0}, "logit_softcap is 30.0"),
        ({"rope": None, "learned_positions": True}, "without rotary positions"),
    ],
)  # fmt: skip
def test_a_decoder_of_another_shape_is_not_written_as_qwen3(
    changes: dict[str, object], field: str, tmp_path: Path
) -> None:
    with pytest.raises(OwnLMError, match=field):
        save_weights(tmp_path, Decoder(tiny.config(**changes)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_decoder_finds_a_family_to_be_written_in(case: Case, tmp_path: Path) -> None:
    config = families()[case.model_type].read_config(json.loads(case.config().to_json_string()))
    found = family_for(config)
    assert found.read_config(found.write_config(config)) == config


def test_new_models_are_written_as_qwen3() -> None:
    assert family_for(tiny.config()) is family


def test_a_decoder_that_no_family_knows() -> None:
    with pytest.raises(OwnLMError, match="No known family .*gemma2.* has all the choices"):
        family_for(tiny.config(norm="layer", experts=None, qk_norm="full"))
