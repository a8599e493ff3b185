"""The key `quantization_config` of a `config.json`, as compressed-tensors, transformers and vLLM read it."""

from __future__ import annotations

from typing import Any

from ownlm.model.quantised.scheme import GROUPS, Scheme
from ownlm.runtime.errors import OwnLMError

METHOD, FORMAT = "compressed-tensors", "pack-quantized"
IDLE = ("quantization_status", "global_compression_ratio", "ignore", "version")
"""Keys that do not change what is computed: which modules are quantised follows from the tensors."""


def weights_entry(scheme: Scheme) -> dict[str, Any]:
    """The key `weights` of a group of modules."""
    strategy = "channel" if scheme.group is None else "group"
    return {
        "num_bits": scheme.bits, "type": "int", "symmetric": True, "strategy": strategy, "group_size": scheme.group,
        "dynamic": False, "actorder": None, "block_structure": None, "observer": None,
    }  # fmt: skip


def check(found: Any, where: str) -> None:
    """Raises `OwnLMError`, naming the key, for a `quantization_config` that asks for more than is read here."""

    def wrong(key: str, value: Any, right: str) -> OwnLMError:
        return OwnLMError(f"{where}: quantization_config has {key}={value!r}, which is not understood; {right}.")

    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        method = found.get("quant_method") if isinstance(found, dict) else found
        raise wrong("quant_method", method, f"quantised models of the method {METHOD!r} are read")
    if found.get("format") != FORMAT:
        raise wrong("format", found.get("format"), f"it must be {FORMAT!r}")
    for key, value in found.items():
        if value and key not in ("quant_method", "format", "config_groups", *IDLE):
            raise wrong(key, value, "weights alone may be quantised")
    groups = found.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise wrong("config_groups", groups, "it must name the modules and how their weights are quantised")
    for name, group in groups.items():
        if group.get("format") not in (None, FORMAT):
            raise wrong(f"config_groups.{name}.format", group["format"], f"it must be {FORMAT!r}")
        for key, value in group.items():
            if value and key not in ("targets", "weights", "format"):
                raise wrong(f"config_groups.{name}.{key}", value, "weights alone may be quantised")
        _check_weights(group.get("weights"), f"config_groups.{name}.weights", wrong)


def _check_weights(weights: Any, key: str, wrong: Any) -> None:
    known = [weights_entry(Scheme(8)), *(weights_entry(Scheme(4, group)) for group in GROUPS)]
    kinds = "symmetric integers are read, 8 bits by channel or 4 bits by groups of 32, 64 or 128"
    if not isinstance(weights, dict):
        raise wrong(key, weights, kinds)
    idle = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
    asked = {name: value for name, value in weights.items() if name not in idle}
    for name, value in asked.items():
        choices = [each.get(name) for each in known]
        if value not in choices and value:
            raise wrong(f"{key}.{name}", value, kinds)
    chosen = {name: asked.get(name) for name in ("num_bits", "type", "symmetric", "strategy", "group_size")}
    if not any(all(each[name] == value for name, value in chosen.items()) for each in known):
        raise wrong(key, chosen, kinds)
