"""Adapters of experts whose matrices PEFT sees in one tensor a layer (`target_parameters`), taken apart by expert.

transformers 5 keeps the experts of a layer as two parameters, `experts.gate_up_proj` `(experts, 2 ffn, width)` and
`experts.down_proj` `(experts, width, ffn)`. PEFT's adapter of one has `A` `(experts * rank, inputs)`, expert by expert,
and `B` `(outputs, rank * experts)`, whose columns are ordered by rank first. Gate and up share an expert's `A`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ownlm.model.adapters.config import AdapterConfig
from ownlm.model.adapters.targets import Target, concise, patterns_for, rank_and_alpha
from ownlm.model.adapters.targets import chosen as chosen_targets
from ownlm.model.config import DecoderConfig, Experts
from ownlm.runtime.errors import OwnLMError

_KEY = re.compile(r"^(?P<owner>.*\.layers\.(?P<layer>\d+)\..*?\.experts)(\.base_layer)?\.lora_(?P<side>[AB])\.weight$")
_GATE = re.compile(r"^(?P<start>.*\.layers\.(?P<layer>\d+)\.)[^.]+\.gate\.lora_(?P<side>[AB])\.weight$")


def unpack(
    adapter: AdapterConfig, tensors: dict[str, Tensor], config: DecoderConfig, targets: dict[str, Target], where: str
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """The same adapter with a target for each expert's matrix, and its tensors under the checkpoint's names.

    Raises:
        OwnLMError: `target_parameters` that are no experts' matrices and no router, or tensors that do not fit them.
    """
    experts = config.experts
    names = {target.modules: name for name, target in targets.items()}
    for parameter in adapter.target_parameters:
        if not parameter.endswith(("gate_up_proj", "down_proj", "gate.weight")) or experts is None:
            raise OwnLMError(
                f"{where}: its target_parameters have {parameter!r}; only a model's router and its experts' "
                "gate_up_proj and down_proj are computed here."
            )
    assert experts is not None
    found: dict[str, Tensor] = {}
    ranks: dict[str, tuple[int, float]] = {}
    packed: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            packed.setdefault((match["owner"] + (match[3] or ""), match["layer"]), {})[match["side"]] = tensor
        elif (match := _GATE.match(key)) and (f"layers.{match['layer']}.mlp.router",) in names:
            name = names[f"layers.{match['layer']}.mlp.router",]
            found[f"{name}.lora_{match['side']}.weight"] = tensor
            ranks[name] = rank_and_alpha(adapter, f"{match['start']}mlp.gate.weight")
        else:
            found[key] = tensor
    for (owner, layer), sides in packed.items():
        if set(sides) != {"A", "B"}:
            raise OwnLMError(f"{where} lacks one of {owner}.lora_A.weight and {owner}.lora_B.weight.")
        whole = owner.removesuffix(".base_layer")
        parameter, parts = _parts(sides["A"], sides["B"], config, f"{where}: {owner}")
        rank, alpha = rank_and_alpha(adapter, f"{whole}.{parameter}")
        if len(sides["A"]) != rank * experts.count or sides["B"].shape[1] != rank * experts.count:
            raise OwnLMError(
                f"{where}: {owner} is of rank {len(sides['A']) / experts.count:g}, but its config says {rank} there."
            )
        for expert in range(experts.count):
            a = sides["A"][expert * rank : (expert + 1) * rank]
            b = sides["B"][:, expert :: experts.count]
            for part, rows in zip(parts, b.chunk(len(parts)), strict=True):
                name = names[f"layers.{layer}.mlp.experts.{expert}.{part}",]
                found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = a, rows
                ranks[name] = rank, alpha
    plain = replace(adapter, target_parameters=())
    if adapter.target_modules:
        for target in chosen_targets(plain, targets):
            ranks.setdefault(target.name, rank_and_alpha(adapter, target.name))
    r, alpha, rank_pattern, alpha_pattern = patterns_for(ranks)
    return (
        replace(
            plain, rank=r, alpha=alpha, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern,
            target_modules=concise(ranks, targets), exclude_modules=(), layers=(), layers_pattern=(),
        ),
        found,
    )  # fmt: skip


def pack(
    adapter: AdapterConfig, tensors: dict[str, Tensor], experts: Experts, targets: Iterable[Target]
) -> dict[str, Tensor] | None:
    """The reverse of `unpack`, `adapter` being the config from before; None where gate and up differ in `A` by now."""
    names = {target.modules: target.name for target in targets}
    left, found = dict(tensors), {}
    for layer in experts.layers:
        start = f"model.layers.{layer}.mlp"
        router = names.get((f"layers.{layer}.mlp.router",))
        for side in "AB":
            if (tensor := left.pop(f"{router}.lora_{side}.weight", None)) is not None:
                found[f"{start}.gate.lora_{side}.weight"] = tensor
        owner = f"{start}.experts"
        for parameter, parts in (("down_proj", ("down_proj",)), ("gate_up_proj", ("gate_proj", "up_proj"))):
            each = [
                [names.get((f"layers.{layer}.mlp.experts.{expert}.{part}",)) for part in parts]
                for expert in range(experts.count)
            ]
            if f"{each[0][0]}.lora_A.weight" not in left or not _has(adapter, f"{start}.experts.{parameter}"):
                continue
            a = [[left.pop(f"{name}.lora_A.weight") for name in one] for one in each]
            b = [torch.cat([left.pop(f"{name}.lora_B.weight") for name in one]) for one in each]
            if not all(torch.equal(one[0], other) for one in a for other in one[1:]):
                return None
            found[f"{owner}.lora_A.weight"] = torch.cat([one[0] for one in a])
            found[f"{owner}.lora_B.weight"] = torch.stack(b, dim=-1).flatten(1)
            owner += ".base_layer"  # PEFT wraps one parameter inside the other
    return {**left, **found}


def _has(adapter: AdapterConfig, parameter: str) -> bool:
    return any(parameter == each or parameter.endswith(f".{each}") for each in adapter.target_parameters)


def _parts(a: Tensor, b: Tensor, config: DecoderConfig, where: str) -> tuple[str, tuple[str, ...]]:
    """Which parameter these belong to, by their shapes, and the matrices that lie in it."""
    assert config.experts is not None
    ffn, width = config.experts.ffn, config.width
    if a.shape[1] == width and len(b) == 2 * ffn:
        return "gate_up_proj", ("gate_proj", "up_proj")
    if a.shape[1] == ffn and len(b) == width:
        return "down_proj", ("down_proj",)
    raise OwnLMError(
        f"{where}: A and B have the shapes {tuple(a.shape)} and {tuple(b.shape)}, which are those of no experts here."
    )
