"""The modules of a checkpoint that an adapter can act on, and the decoder's modules that they are made of.

PEFT names an adapter's tensors after the checkpoint's modules. Where a checkpoint keeps several of the decoder's
matrices in one (`qkv_proj`), an adapter of it has one `A` and, row by row, a part of `B` for each of them: the product
`B A` splits by rows just as the weight does, and so do the row lengths of DoRA.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ownlm.model.adapters.config import ALL_LINEAR, AdapterConfig, Names
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family, Stored
from ownlm.model.layers import Embedding, Linear
from ownlm.runtime.errors import OwnLMError

HEAD = "lm_head"
Kind = Literal["linear", "embedding", "head"]


@dataclass(frozen=True)
class Target:
    """The checkpoint's module `name`, which holds the decoder's `modules`, with `outputs` rows each, one below another.

    `turned`: its weight is stored transposed. A tied head ("head") shares the embedding's weight.
    """

    name: str
    kind: Kind
    modules: tuple[str, ...]
    inputs: int
    outputs: tuple[int, ...]
    stored: Stored
    turned: bool = False

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """Takes `(all outputs, n)` apart into each module's rows, in the order of `modules`."""
        return self.stored.split(rows.T if self.turned else rows) if len(self.modules) > 1 else (rows,)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The reverse of `split`."""
        if len(parts) == 1:
            return parts[0]
        whole = self.stored.join(parts)
        return whole.T if self.turned else whole


def targets_of(config: DecoderConfig, family: Family) -> dict[str, Target]:
    """Every module of the family's checkpoints that an adapter can act on, by its name; a tied head among them."""
    with torch.device("meta"):
        modules = dict(Decoder(config.with_(tied_embeddings=False)).named_modules())
    found: dict[str, Target] = {}
    for stored in family.tensors(config.with_(tied_embeddings=False)):
        owners = [modules.get(name.removesuffix(".weight")) for name in stored.parameters]
        if not all(isinstance(owner, Linear | Embedding) for owner in owners) or not stored.name.endswith(".weight"):
            continue
        paths = tuple(name.removesuffix(".weight") for name in stored.parameters)
        weights = [owner.weight for owner in owners if isinstance(owner, Linear | Embedding)]
        # Matrices of one column tell which way the checkpoint keeps them, even where they are square.
        thin = stored.join([torch.empty(len(weight), 1, device="meta") for weight in weights])
        turned = thin.shape[0] != sum(map(len, weights))
        name = stored.name.removesuffix(".weight")
        if isinstance(owners[0], Embedding):  # as a matrix `(width, vocabulary)` that tokens choose columns of
            vocabulary, width = weights[0].shape
            found[name] = Target(name, "embedding", paths, vocabulary, (width,), stored)
            continue
        kind: Kind = "head" if paths == (HEAD,) and config.tied_embeddings else "linear"
        outputs = tuple(len(weight) for weight in weights)
        found[name] = Target(name, kind, paths, weights[0].shape[1], outputs, stored, turned)
    return found


def chosen(adapter: AdapterConfig, targets: dict[str, Target]) -> list[Target]:
    """The targets that the config's names choose, by PEFT's rules.

    Raises:
        OwnLMError: it chooses none, or a regular expression that is none.
    """
    try:
        found = [target for target in targets.values() if _chooses(adapter, target)]
    except re.error as error:
        raise OwnLMError(f"The adapter's names have a regular expression that is none ({error}).") from None
    if not found:
        ends = sorted({name.rsplit(".", 1)[-1] for name in targets})
        raise OwnLMError(
            f"The adapter's target_modules ({describe(adapter.target_modules)}) name no module of this model: it has "
            f"{', '.join(ends)}. An adapter fits the architecture that it was trained on."
        )
    return found


def _chooses(adapter: AdapterConfig, target: Target) -> bool:
    name, wanted = target.name, adapter.target_modules
    if adapter.exclude_modules and _matches(adapter.exclude_modules, name):
        return False
    if wanted == ALL_LINEAR:
        found = target.kind == "linear" and target.modules != (HEAD,)
    else:
        found = _matches(wanted, name)
    if found and adapter.layers:
        return _layer(name, adapter.layers_pattern) in adapter.layers
    return found


def _matches(names: Names, name: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in names)


def _layer(name: str, patterns: Sequence[str]) -> int | None:
    """The number of the block that a module lies in: the first number after a name, or after one of `patterns`."""
    for pattern in patterns or (r"[^.]*",):
        head = rf"(?:^|.*?\.){pattern}" if patterns else r".*?\.[^.]*"
        if found := re.match(rf"{head}\.(\d+)\.", name):
            return int(found[1])
    return None


def rank_and_alpha(adapter: AdapterConfig, name: str) -> tuple[int, float]:
    """The rank and the alpha of the module of that name: the first pattern that its end matches, or the usual ones."""

    def first(patterns: Iterable[str]) -> str | None:
        return next((each for each in patterns if re.match(rf"(.*\.)?({each})$", name)), None)

    rank, alpha = first(adapter.rank_pattern), first(adapter.alpha_pattern)
    return (
        adapter.rank if rank is None else adapter.rank_pattern[rank],
        adapter.alpha if alpha is None else adapter.alpha_pattern[alpha],
    )


def patterns_for(ranks: dict[str, tuple[int, float]]) -> tuple[int, float, dict[str, int], dict[str, float]]:
    """The usual rank and alpha of these modules, and patterns for the others."""
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0]
    return (
        rank,
        alpha,
        {re.escape(name): each for name, (each, _) in ranks.items() if each != rank},
        {re.escape(name): each for name, (_, each) in ranks.items() if each != alpha},
    )


def concise(names: Iterable[str], targets: dict[str, Target]) -> tuple[str, ...]:
    """The last parts of `names` where they choose exactly these, else the whole names."""
    whole = sorted(names)
    ends = tuple(sorted({name.rsplit(".", 1)[-1] for name in whole}))
    return ends if sorted(name for name in targets if _matches(ends, name)) == whole else tuple(whole)


def describe(names: Names) -> str:
    """For a sentence."""
    return repr(names) if isinstance(names, str) else ", ".join(names)
