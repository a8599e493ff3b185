"""Which parameter is updated by which rule: Muon for the blocks' matrices, AdamW for the rest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ownlm.model.decoder import Decoder
from ownlm.train.muon import Muon


@dataclass(frozen=True)
class Rates:
    """Peak learning rates. `matrices` is Muon's, `embeddings` and `vectors` AdamW's (Loshchilov and Hutter 2019)."""

    matrices: float = 0.01
    embeddings: float = 0.04
    vectors: float = 0.04
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0

    def scaled(self, matrices: float, rest: float) -> Rates:
        """These rates times a share for the matrices, and one for embeddings and vectors."""
        return dataclasses.replace(
            self, matrices=self.matrices * matrices, embeddings=self.embeddings * rest, vectors=self.vectors * rest
        )


def parameter_groups(decoder: Decoder) -> dict[str, list[Tensor]]:
    """Every parameter in exactly one of "matrices", "embeddings" (the head included) and "vectors"."""
    groups: dict[str, list[Tensor]] = {"matrices": [], "embeddings": [], "vectors": []}
    for name, parameter in decoder.named_parameters():
        if parameter.ndim < 2:
            groups["vectors"].append(parameter)
        elif name.startswith("layers."):
            groups["matrices"].append(parameter)
        else:
            groups["embeddings"].append(parameter)
    return groups


def build_optimisers(decoder: Decoder, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon and AdamW over the groups; each parameter group remembers its peak rate as `peak`."""
    groups = parameter_groups(decoder)
    muon_dtype = torch.bfloat16 if decoder.compute_dtype == torch.bfloat16 else torch.float32
    muon = Muon(groups["matrices"], rates.matrices, rates.momentum, rates.weight_decay, muon_dtype)
    adamw = torch.optim.AdamW(
        [
            {"params": groups["embeddings"], "lr": rates.embeddings},
            {"params": groups["vectors"], "lr": rates.vectors},
        ],
        betas=(rates.beta1, rates.beta2),
        eps=1e-10,
        weight_decay=0.0,
        fused=True,
    )
    optimisers: list[torch.optim.Optimizer] = [muon, adamw]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers
