"""Every key of a config is read as transformers reads it, changes nothing there either, or is a named error."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import family_cases
from family_cases import BY_NAME, CASES, FAMILIES, Case
from ownlm.model.families import families
from ownlm.runtime.errors import OwnLMError

Data = dict[str, Any]
NAMES = {"model_type", "architectures", "dtype", "transformers_version"}
"""Keys that tell what a file is, not what is computed."""
REQUIRED = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "n_embd", "n_head", "n_layer", "n_positions", "factor", "low_freq_factor",
    "high_freq_factor", "short_factor", "long_factor",
}  # fmt: skip
"""Without a default here: a checkpoint that does not name its sizes is broken."""

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_family = pytest.mark.parametrize("case", FAMILIES.values(), ids=lambda case: case.model_type)


def config_json(config: Any) -> Data:
    """What transformers writes into `config.json`."""
    return json.loads(config.to_json_string())


def paths(data: Data) -> list[tuple[str, ...]]:
    """The path of every key, those of tables included."""
    found = []
    for key, value in data.items():
        if key in NAMES:
            continue
        found.append((key,))
        if isinstance(value, dict):
            found += [(key, *path) for path in paths(value)]
    return found


def at(data: Data, path: tuple[str, ...]) -> Any:
    """The value there."""
    for key in path:
        data = data[key]
    return data


def changed(data: Data, path: tuple[str, ...], *value: Any) -> Data:
    """A copy with another value at that place, or without the key."""
    copy = deepcopy(data)
    table = copy
    for key in path[:-1]:
        table = table[key]
    table.pop(path[-1], None)
    if value:
        table[path[-1]] = value[0]
    return copy


known_families = cache(families)


def read(data: Data) -> Any:
    """Our config, or the error's text."""
    try:
        return known_families()[data["model_type"]].read_config(deepcopy(data))
    except OwnLMError as error:
        return str(error)


def read_by_transformers(data: Data) -> Any:
    """Our config of what transformers makes of it, all its defaults filled in; None where it refuses."""
    try:
        theirs = CONFIG_MAPPING[data["model_type"]].from_dict(deepcopy(data))
        return read(config_json(theirs))
    except Exception:
        return None


@every_case
def test_absent_and_null_are_what_transformers_takes_them_for(case: Case) -> None:
    saved = config_json(case.config())
    older = {key: value for key, value in saved.items() if key != "layer_types"}
    wrong = []
    for data in (saved, older) if older != saved else (saved,):
        for path in paths(data):
            for value in ((), (None,)):
                other = changed(data, path, *value)
                expected, found = read_by_transformers(other), read(other)
                refused = isinstance(found, str) and path[-1] in REQUIRED and path[-1] in found
                if expected is not None and found != expected and not refused:
                    wrong.append((path, value, str(found)))
    assert not wrong


def other_value(value: Any) -> Any:
    """Another one of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 2
        case float():
            return value * 1.25 + 0.01
        case str():
            return f"{value}-odd"
        case None:
            return 3
        case [*items]:
            return [other_value(item) for item in items] or [0]
    return {"odd": 1}


@every_case
@torch.no_grad()
def test_a_value_that_is_not_noticed_changes_nothing_in_transformers(case: Case) -> None:
    data = config_json(case.config())
    config, theirs_of = read(data), CONFIG_MAPPING[case.model_type].from_dict
    unnoticed, count = data, 0
    for path in paths(data):
        tried = changed(unnoticed, path, other_value(at(data, path)))
        if read(tried) != config:
            continue
        with suppress(StrictDataclassError):  # no such value there
            theirs_of(tried)
            unnoticed, count = tried, count + 1
    assert count > 3
    original = family_cases.make(case)
    theirs = AutoModelForCausalLM.from_config(theirs_of(unnoticed), attn_implementation="eager").eval()
    theirs.load_state_dict(original.state_dict())
    ids = family_cases.text(case.lengths[-1])
    found, expected = theirs(ids).logits, original(ids).logits
    same = float((found - expected).abs().max()) <= 1e-5  # `reorder_and_upcast_attn` alone rounds otherwise
    assert same, [path for path in paths(data) if at(data, path) != at(unnoticed, path)]


def names(path: tuple[str, ...], message: str) -> bool:
    """Whether an error names the key, its table, or what the decoder's config calls it."""
    ours = {"num_key_value_heads": "kv_heads", "num_experts_per_tok": "experts"}
    return any(key in message for key in (*path, ours.get(path[-1], path[-1])))


@every_family
def test_wrong_types_are_named_or_do_not_matter(case: Case) -> None:
    data = config_json(case.config())
    config = read(data)
    found = {path: read(changed(data, path, {"odd": ["x"]})) for path in paths(data)}
    assert not {path: each for path, each in found.items() if isinstance(each, str) and not names(path, each)}
    # Nothing of a wrong type is taken for something: either it is an error, or the key does not matter.
    assert not {path for path, each in found.items() if not isinstance(each, str) and each != config}
    assert sum(isinstance(each, str) for each in found.values()) > 8


@every_case
def test_an_unknown_key_is_named_in_every_table(case: Case) -> None:
    data = config_json(case.config())
    tables = [(), *(path for path in paths(data) if isinstance(at(data, path), dict))]
    for path in tables:
        found = read(changed(data, path, {**at(data, path), "new_gadget": 3}) if path else {**data, "new_gadget": 3})
        assert isinstance(found, str) and "new_gadget" in found, path


UNSUPPORTED: dict[str, Data] = {
    "llama": {"hidden_act": "mish", "quantization_config": {"quant_method": "awq"}, "sliding_window": 8},
    "mistral": {"sliding_window": "wide", "attention_bias": True},
    "mixtral": {"num_experts_per_tok": 6, "num_local_experts": 2.5},
    "qwen2": {"use_mrope": True, "layer_types": ["full_attention", "chunked_attention"]},
    "qwen3": {"layer_types": ["full_attention"], "num_experts": 4},
    "qwen3_moe": {"norm_topk_prob": "yes", "mlp_only_layers": 1, "shared_expert_intermediate_size": 64},
    "gemma2": {"use_bidirectional_attention": True, "hidden_activation": "tanh"},
    "gemma3_text": {"use_bidirectional_attention": True, "attn_logit_softcapping": 50.0},
    "olmo2": {"clip_qkv": 8.0, "num_key_value_heads": 3},
    "phi3": {"lm_head_bias": True, "interpolate_factor": 2, "attention_bias": True},
    "smollm3": {"no_rope_layers": [1], "use_sliding_window": 1},
    "gpt2": {"add_cross_attention": True, "n_head": 5},
    "gpt_neox": {"rotary_pct": "most", "is_decoder": 1},
}


@pytest.mark.parametrize(
    ("model_type", "key"), [(model_type, key) for model_type, keys in UNSUPPORTED.items() for key in keys]
)
def test_what_this_decoder_does_not_compute_is_refused(model_type: str, key: str) -> None:
    data = config_json(FAMILIES[model_type].config())
    found = read({**data, key: UNSUPPORTED[model_type][key]})
    assert isinstance(found, str) and names((key,), found)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rope_type": "mrope", "mrope_section": [2, 1, 1]}, "rope_type='mrope'; known are"),
        ({"rope_type": "linear"}, "rope_parameters lacks the key factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor='4'; it must be a number"),
        ({"rope_type": "linear", "factor": 0}, "factor=0.0"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}, "not understood here: beta_fast"),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0}, "lacks the key high_freq_factor"),
        ({"rope_type": "longrope", "short_factor": "x", "long_factor": [1.0]}, "short_factor='x'"),
        ({"rope_type": "default", "partial_rotary_factor": 1.5}, "share of 1.5"),
        ({"rope_type": "default", "rope_theta": -1}, "theta=-1.0"),
        ([1, 2], "rope_parameters=[1, 2]; it must be an object"),
    ],
)
def test_rotary_tables_that_are_not_understood(table: object, message: str) -> None:
    found = read({**config_json(BY_NAME["llama 3"].config()), "rope_parameters": table})
    assert isinstance(found, str) and message in found


@every_family
def test_the_older_spelling_of_rotary_positions_means_the_same(case: Case) -> None:
    data = config_json(case.config())
    if "rope_parameters" not in data:
        return
    for name in ("linear", "dynamic", "yarn", "llama3"):
        tables = [each.keys["rope_parameters"] for each in CASES if each.name.startswith((f"rope {name}", "llama 3.2"))]
        table = next(each for each in tables if each["rope_type"] == name)
        if case.model_type == "phi3":  # has longrope alone
            continue
        inner = {key: value for key, value in table.items() if key not in ("rope_type", "rope_theta")}
        older = {key: value for key, value in data.items() if key not in ("rope_parameters", "dtype")}
        base = "rotary_emb_base" if case.model_type == "gpt_neox" else "rope_theta"
        kind = "rope_type" if case.model_type == "gemma3_text" else "type"
        older |= {"rope_scaling": {kind: name, **inner}, base: table["rope_theta"], "torch_dtype": "float32"}
        found = read(older)
        assert found == read_by_transformers(older) and found.rope.kind == name


@pytest.mark.parametrize("name", ["qwen 3", "gemma 3 with a cap", "gpt neox"])
def test_an_added_rope_scaling_counts_before_rope_parameters(name: str) -> None:
    added = {**config_json(BY_NAME[name].config()), "rope_scaling": {"rope_type": "linear", "factor": 3.0}}
    assert read(added).rope.factor == 3.0 and read(added) == read_by_transformers(added)


@pytest.mark.parametrize("model_type", ["mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "smollm3"])
def test_a_window_of_null_is_none_at_all(model_type: str) -> None:
    data = config_json(FAMILIES[model_type].config())
    data.pop("layer_types", None)
    data |= {"use_sliding_window": True, "max_window_layers": 0} if "use_sliding_window" in data else {}
    assert read({**data, "sliding_window": 5}).sliding_layers
    assert not read({**data, "sliding_window": None}).sliding_layers


def test_rotary_tables_of_gemma_3_stand_apart() -> None:
    data = config_json(BY_NAME["gemma 3"].config())
    found = read({**data, "rope_parameters": {"rope_type": "linear", "factor": 3.0}})
    assert isinstance(found, str) and "rope_parameters" in found and "tables full_attention and sliding" in found
    found = read({**data, "rope_parameters": {"full_attention": 3}})
    assert isinstance(found, str) and "full_attention=3; it must be an object" in found


@every_family
@pytest.mark.parametrize("window", [False, True])
def test_a_minimal_config_has_the_defaults_of_transformers(case: Case, window: bool) -> None:
    theirs = config_json(CONFIG_MAPPING[case.model_type]())
    minimal = {key: theirs[key] for key in ("model_type", *sorted(REQUIRED)) if key in theirs}
    minimal |= {"num_hidden_layers": 30} if "num_hidden_layers" in minimal else {}
    if window and "use_sliding_window" in theirs:
        minimal |= {"use_sliding_window": True}
    found = read(minimal)
    assert not isinstance(found, str) and found == read_by_transformers(minimal)
