"""Which parameter is updated by which rule: Muon for the blocks' matrices, AdamW for the rest and for adapters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ownlm.model.adapters.layers import LowRank
from ownlm.model.decoder import Decoder
from ownlm.runtime.errors import OwnLMError
from ownlm.train.exchange import alike
from ownlm.train.muon import Muon

_FIRST_MOMENTUM = 0.85


@dataclass(frozen=True)
class Rates:
    """Peak learning rates. `matrices` is Muon's, the others AdamW's (Loshchilov and Hutter 2019).

    `adapters` is for low-rank updates of a frozen model; its default is QLoRA's for small models (arXiv 2305.14314,
    table 9). `momentum` is Muon's; over the first `momentum_warmup` steps it rises from 0.85. `neuron_beta` above 0
    makes Muon NorMuon, `cautious` decays only weights that the update shrinks anyway (see `Muon`).
    """

    matrices: float = 0.01
    embeddings: float = 0.04
    head: float = 0.04
    vectors: float = 0.04
    adapters: float = 2e-4
    momentum: float = 0.95
    momentum_warmup: int = 0
    neuron_beta: float = 0.0
    cautious: bool = False
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0

    def scaled(self, matrices: float, rest: float) -> Rates:
        """These rates times a share for the matrices, and one for embeddings, head and vectors."""
        return dataclasses.replace(
            self,
            matrices=self.matrices * matrices,
            embeddings=self.embeddings * rest,
            head=self.head * rest,
            vectors=self.vectors * rest,
        )

    def momentum_at(self, step: int) -> float:
        """Muon's momentum at `step`, counted from 0."""
        if step >= self.momentum_warmup:
            return self.momentum
        return _FIRST_MOMENTUM + (self.momentum - _FIRST_MOMENTUM) * step / self.momentum_warmup


def parameter_groups(decoder: Decoder) -> dict[str, list[Tensor]]:
    """Every parameter that learns, in exactly one of "matrices", "embeddings", "head", "vectors", "adapters".

    A tied head is among the embeddings. What is frozen (`requires_grad` false) is in none.
    """
    groups: dict[str, list[Tensor]] = {"matrices": [], "embeddings": [], "head": [], "vectors": [], "adapters": []}
    low_rank = {id(p) for module in decoder.modules() if isinstance(module, LowRank) for p in module.parameters()}
    for name, parameter in decoder.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in low_rank:
            groups["adapters"].append(parameter)
        elif parameter.ndim < 2:
            groups["vectors"].append(parameter)
        elif name.startswith("layers."):
            groups["matrices"].append(parameter)
        elif name.startswith("lm_head."):
            groups["head"].append(parameter)
        else:
            groups["embeddings"].append(parameter)
    return groups


def build_optimisers(decoder: Decoder, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon and AdamW over the groups that have parameters; each group remembers its peak rate as `peak`.

    Raises:
        OwnLMError: every parameter is frozen.
    """
    groups = parameter_groups(decoder)
    optimisers: list[torch.optim.Optimizer] = []
    if groups["matrices"]:
        muon_dtype = torch.bfloat16 if decoder.compute_dtype == torch.bfloat16 else torch.float32
        optimisers.append(
            Muon(
                groups["matrices"],
                rates.matrices,
                rates.momentum,
                rates.weight_decay,
                muon_dtype,
                neuron_beta=rates.neuron_beta,
                cautious=rates.cautious,
            )
        )
    rest = {name: getattr(rates, name) for name in ("embeddings", "head", "vectors", "adapters")}
    if any(groups[name] for name in rest):
        optimisers.append(
            torch.optim.AdamW(
                [{"params": part, "lr": rate} for name, rate in rest.items() for part in alike(groups[name])],
                betas=(rates.beta1, rates.beta2),
                eps=1e-10,
                weight_decay=0.0,
                fused=True,
            )
        )
    if not optimisers:
        raise OwnLMError("There is nothing to train: every parameter of the model is frozen.")
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def set_rates(optimisers: list[torch.optim.Optimizer], rates: Rates, factor: float, step: int) -> None:
    """Sets every group's rate to `factor` times its peak, and Muon's momentum to that of `step`."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
            if "momentum" in group:
                group["momentum"] = rates.momentum_at(step)
