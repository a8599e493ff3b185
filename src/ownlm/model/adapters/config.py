"""`adapter_config.json`: what a LoRA adapter is, in the keys of PEFT."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.model.families.keys import Keys
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

CONFIG = "adapter_config.json"
ALL_LINEAR = "all-linear"
"""Every matrix but the head's."""

# Nothing of these changes what a trained adapter answers: origin, initial values, training's own methods.
_HARMLESS = (
    "peft_version", "inference_mode", "revision", "megatron_core", "runtime_config", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "velora_config", "qalora_group_size", "fan_in_fan_out",
)  # fmt: skip
# Ways to begin that leave the base as it is. The others (pissa, olora, corda, loftq, ...) subtract from the base's
# weights what they put into the adapter, so that such an adapter does not fit the base that it names.
_KIND_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal", "mica")
_OFF: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": ([],),
    "trainable_token_indices": ([], {}),
    "layer_replication": ([],),
    "megatron_config": ({},),
    "alora_invocation_tokens": (),
    "use_qalora": (False,),
    "use_bdlora": (False,),
    "monteclora_config": (),
    "arrow_config": (),
    "kasa_config": (),
    "ensure_weight_tying": (False,),
}
REMEDY = "merge it into its base with PEFT (merge_and_unload) and open the merged model"

Names = tuple[str, ...] | str
"""Module names (or their ends), or one regular expression over whole names."""


@dataclass(frozen=True)
class AdapterConfig:
    """A low-rank adapter: `rank` and `alpha` of its matrices, and which modules of the checkpoint carry one.

    - `target_modules`: names or ends of names of a checkpoint's modules ("q_proj"), a regular expression over whole
      names, or "all-linear"; without `exclude_modules`, and only in `layers`, where given (`layers_pattern`: the name
      of the list of blocks). `target_parameters`: PEFT's name for matrices of experts that lie in one tensor.
    - `rank_pattern`, `alpha_pattern`: other ranks and alphas for names that end with a regular expression.
    - `rslora`: scale by `alpha / sqrt(rank)` (rsLoRA) instead of `alpha / rank` (LoRA). `dora`: learn the length of
      each row of the weight by itself (DoRA). `dropout` acts on an adapter's input in training.
    - `base` is the name or folder of the model that the adapter was made for.
    """

    rank: int = 8
    alpha: float = 8.0
    target_modules: Names = ALL_LINEAR
    exclude_modules: Names = ()
    target_parameters: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dora: bool = False
    lora_bias: bool = False
    dropout: float = 0.0
    base: str = ""
    task: str = "CAUSAL_LM"

    def __post_init__(self) -> None:
        ranks = [self.rank, *self.rank_pattern.values()]
        if any(rank < 1 for rank in ranks):
            raise OwnLMError(f"An adapter's rank is {min(ranks)}; it must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise OwnLMError(f"An adapter's dropout is {self.dropout}; it must be at least 0 and below 1.")
        if isinstance(self.target_modules, str) and self.layers:
            raise OwnLMError("An adapter has layers_to_transform, which needs a list of target_modules.")
        if self.dora and self.lora_bias:
            raise OwnLMError("An adapter has both use_dora and lora_bias, which do not go together.")

    def scaling(self, rank: int, alpha: float) -> float:
        """What `B A` is multiplied with: `alpha / rank` (arXiv 2106.09685), or `alpha / sqrt(rank)` (2312.03732)."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The config of a PEFT folder.

    Raises:
        OwnLMError: no such file, no JSON, another method than LoRA, or a key that changes the computation and is not
            computed here; the message names it.
    """
    path = folder / CONFIG
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OwnLMError(f"{folder} is no adapter folder: it has no {CONFIG}.") from None
    except ValueError as error:
        raise OwnLMError(f"{path} is not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise OwnLMError(f"{path} is not a JSON object.")
    return parse(Keys(data, str(path)))


def parse(keys: Keys) -> AdapterConfig:
    """The config that these keys describe; see `read_adapter_config`."""
    if (kind := keys.raw("peft_type")) != "LORA":
        raise OwnLMError(
            f"{keys.where} has peft_type={kind!r}; only LORA is computed here (with use_rslora and use_dora); {REMEDY}."
        )
    for key, allowed in _OFF.items():
        if (value := keys.raw(key)) is not None and value not in allowed:
            raise OwnLMError(f"{keys.where} has {key}={value!r}, which is not computed here; {REMEDY}.")
    beginning = keys.raw("init_lora_weights", True)
    if beginning not in _KIND_BEGINNINGS:
        raise OwnLMError(
            f"{keys.where} has init_lora_weights={beginning!r}, which changed the base's weights: save the adapter "
            "again with PEFT's path_initial_model_for_weight_conversion, which makes a plain one of it."
        )
    keys.ignore(*_HARMLESS)
    keys.raw("auto_mapping")
    layers = keys.raw("layers_to_transform")
    config = AdapterConfig(
        rank=keys.integer("r", 8),
        alpha=keys.number("lora_alpha", 8),
        target_modules=_names(keys, "target_modules"),
        exclude_modules=_names(keys, "exclude_modules"),
        target_parameters=_list(keys, "target_parameters"),
        layers=(layers,) if isinstance(layers, int) else tuple(keys.integers("layers_to_transform", [])),
        layers_pattern=_list(keys, "layers_pattern"),
        rank_pattern={name: int(value) for name, value in _pattern(keys, "rank_pattern").items()},
        alpha_pattern=_pattern(keys, "alpha_pattern"),
        rslora=keys.flag("use_rslora", False),
        dora=keys.flag("use_dora", False),
        lora_bias=keys.flag("lora_bias", False),
        dropout=keys.number("lora_dropout", 0.0),
        base=keys.text("base_model_name_or_path", ""),
        task=keys.text("task_type", ""),
    )
    keys.close()
    if not config.target_modules and not config.target_parameters:
        raise OwnLMError(f"{keys.where} names no target_modules, so that nobody knows what the adapter acts on.")
    return config


def _names(keys: Keys, key: str) -> Names:
    value = keys.raw(key)
    if isinstance(value, str):
        return ALL_LINEAR if value.lower() == ALL_LINEAR else value
    return _list(keys, key)


def _list(keys: Keys, key: str) -> tuple[str, ...]:
    value = keys.raw(key, [])
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise OwnLMError(f"{keys.where} has {key}={value!r}; it must be a list of names.")
    return tuple(value)


def _pattern(keys: Keys, key: str) -> dict[str, float]:
    value = keys.raw(key, {})
    if not isinstance(value, dict) or not all(isinstance(each, int | float) for each in value.values()):
        raise OwnLMError(f"{keys.where} has {key}={value!r}; it must be an object of numbers.")
    return value


def write_adapter_config(folder: Path, config: AdapterConfig, fan_in_fan_out: bool = False) -> None:
    """Writes `adapter_config.json` as PEFT does; `fan_in_fan_out`: the adapted matrices are stored transposed."""
    whole = config.alpha == int(config.alpha)
    atomic.write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": config.task or None,
            "base_model_name_or_path": config.base or None,
            "inference_mode": True,
            "r": config.rank,
            "lora_alpha": int(config.alpha) if whole else config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.rslora,
            "use_dora": config.dora,
            "lora_bias": config.lora_bias,
            "bias": "none",
            "fan_in_fan_out": fan_in_fan_out,
            "init_lora_weights": True,
            "target_modules": _plain(config.target_modules),
            "exclude_modules": _plain(config.exclude_modules) or None,
            "target_parameters": list(config.target_parameters) or None,
            "layers_to_transform": list(config.layers) or None,
            "layers_pattern": list(config.layers_pattern) or None,
            "rank_pattern": config.rank_pattern,
            "alpha_pattern": config.alpha_pattern,
            "modules_to_save": None,
        },
    )


def _plain(names: Names) -> str | list[str]:
    return names if isinstance(names, str) else list(names)
