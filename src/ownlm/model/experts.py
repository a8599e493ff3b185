"""A mixture of experts: a router sends each token through a few of many feed-forwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.layers import FeedForward, Linear


class ExpertFeedForward(nn.Module):
    """Each token's output is the weighted sum of its best experts' (Mixtral, arXiv 2401.04088, section 2.1)."""

    def __init__(self, config: DecoderConfig, experts: Experts) -> None:
        super().__init__()
        self.active, self.renormalise = experts.active, experts.renormalise
        self.router = Linear(config.width, experts.count)
        self.experts = nn.ModuleList(FeedForward(config, experts.ffn) for _ in range(experts.count))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to `(..., width)`. The router's softmax is fp32; only experts that a token chose are run."""
        flat = x.flatten(0, -2)
        shares, chosen = self.router(flat).float().softmax(-1).topk(self.active, dim=-1)
        if self.renormalise:
            shares = shares / shares.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for index in chosen.unique().tolist():
            rows, places = torch.where(chosen == index)
            found = self.experts[index](flat[rows]).float() * shares[rows, places, None]
            out = out.index_add(0, rows, found.to(out.dtype))
        return out.view(x.shape)
