"""An adapter in memory, and several of them on one frozen decoder, at most one at work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ownlm.model.adapters.config import AdapterConfig
from ownlm.model.adapters.layers import AdaptedEmbedding, AdaptedLinear, LowRank
from ownlm.model.adapters.targets import HEAD, Target, chosen, rank_and_alpha, targets_of
from ownlm.model.config import DecoderConfig, Experts
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family
from ownlm.model.layers import Embedding, Linear
from ownlm.runtime.errors import OwnLMError


@dataclass(frozen=True)
class Adapter:
    """Low-rank updates of some modules of a decoder; `targets` as its files name them.

    `updates` holds one for each of the decoder's modules, by its path; those of one fused target share `lora_A`.
    `packed` is the config of its files where those have all experts of a layer in one.
    """

    config: AdapterConfig
    targets: tuple[Target, ...]
    updates: dict[str, LowRank]
    packed: tuple[AdapterConfig, Experts] | None = None

    def parameters(self) -> list[nn.Parameter]:
        """Each once."""
        found = {id(each): each for update in self.updates.values() for each in update.parameters()}
        return list(found.values())


def update_target(
    config: AdapterConfig,
    target: Target,
    lora_A: Tensor,
    lora_B: Tensor,
    magnitude: Tensor | None = None,
    bias: Tensor | None = None,
) -> dict[str, LowRank]:
    """The updates of a target's modules, in fp32 and frozen.

    `lora_A` `(rank, inputs)`, `lora_B` `(outputs, rank)`, `magnitude` and `bias` `(outputs,)` are the whole target's.
    """

    def parts(rows: Tensor | None) -> list[nn.Parameter | None]:
        if rows is None:
            return [None] * len(target.modules)
        shaped = rows if rows.ndim == 2 else rows[:, None]
        found = [part.reshape(-1, *rows.shape[1:]) for part in target.split(shaped)]
        return [_frozen(part) for part in found]

    rank, alpha = rank_and_alpha(config, target.name)
    shared, scaling = _frozen(lora_A), config.scaling(rank, alpha)
    updates = {}
    for path, b, m, c in zip(target.modules, parts(lora_B), parts(magnitude), parts(bias), strict=True):
        assert b is not None
        updates[path] = LowRank(shared, b, scaling, m, c, config.dropout)
    return updates


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().clone(memory_format=torch.contiguous_format), requires_grad=False)


@torch.no_grad()
def fresh_adapter(decoder: Decoder, family: Family, config: AdapterConfig, seed: int) -> Adapter:
    """An adapter to train, which changes nothing yet.

    As in PEFT: `A` uniform within `1 / sqrt(inputs)` (Kaiming's with slope `sqrt(5)`) and `B` zero, of an embedding
    `A` zero and `B` normal; DoRA's magnitudes are the lengths of the weight's rows.

    Raises:
        OwnLMError: the config's names choose nothing, or dropout was asked for on the head.
    """
    targets = chosen(config, targets_of(decoder.config, family))
    generator = torch.Generator().manual_seed(seed)
    updates: dict[str, LowRank] = {}
    for target in targets:
        if config.dropout and target.modules == (HEAD,):
            raise OwnLMError("An adapter of the head takes no dropout: set lora_dropout to 0, or leave lm_head out.")
        rank, _ = rank_and_alpha(config, target.name)
        rows = sum(target.outputs)
        lora_a, lora_b = torch.zeros(rank, target.inputs), torch.zeros(rows, rank)
        if target.kind == "embedding":
            lora_b.normal_(generator=generator)
        else:
            lora_a.uniform_(-1 / math.sqrt(target.inputs), 1 / math.sqrt(target.inputs), generator=generator)
        lengths = target.join([_weight(decoder, target, path).float().norm(dim=1)[:, None] for path in target.modules])
        bias = torch.zeros(rows) if config.lora_bias and target.kind != "embedding" else None
        updates |= update_target(config, target, lora_a, lora_b, lengths.flatten() if config.dora else None, bias)
    return Adapter(config, tuple(targets), updates)


def _weight(decoder: Decoder, target: Target, path: str) -> Tensor:
    """A module's matrix, `(outputs, inputs)` as the adapter sees it."""
    if target.kind == "head":
        return decoder.head
    module: Any = decoder.get_submodule(path)
    weight: Tensor = module.dense()
    return weight.T if target.kind == "embedding" else weight


class Adapters:
    """Named adapters of one decoder, whose modules they leave as they are; `active` says which is at work.

    Adding one puts an `AdaptedLinear` (or `AdaptedEmbedding`) in each adapted module's place; `detach` undoes it. Not
    to be used from several threads at once: see `ownlm.engine.adapted`.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.active: str | None = None
        self.merged = False
        self._adapters: dict[str, Adapter] = {}
        self._kept: list[tuple[Any, str, nn.Parameter]] = []
        self._tied: DecoderConfig | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they came."""
        return tuple(self._adapters)

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise OwnLMError(f"There is no adapter '{name}' in memory. There is: {known}.")
        return self._adapters[name]

    def add(self, name: str, adapter: Adapter) -> None:
        """Makes room for `adapter` in the decoder; it is not at work yet.

        Raises:
            OwnLMError: the name is taken, or a module is missing or of another shape.
        """
        if name in self._adapters:
            raise OwnLMError(f"There is an adapter '{name}' in memory already.")
        self._plain("Adding an adapter")
        for path, update in adapter.updates.items():
            self._check(path, update)
        for path in adapter.updates:
            self._wrap(path)
        self._adapters[name] = adapter

    def remove(self, name: str) -> None:
        """Forgets an adapter."""
        if self[name] and self.active == name:
            self.activate(None)
        del self._adapters[name]

    def activate(self, name: str | None) -> None:
        """Puts one adapter to work, or none: then the decoder computes what its base does."""
        if name == self.active:
            return
        self._plain("Switching adapters")
        adapter = None if name is None else self[name]
        if self.active is not None:
            self._place(self._adapters[self.active], working=False)
        if adapter is not None:
            self._place(adapter, working=True)
        self.active = name

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Inside the block that adapter is at work, afterwards the one from before."""
        before = self.active
        self.activate(name)
        try:
            yield
        finally:
            self.activate(before)

    def train(self, name: str) -> list[nn.Parameter]:
        """Puts an adapter to work and lets it alone learn: everything else in the decoder is frozen."""
        self.decoder.requires_grad_(False)
        for adapter in self._adapters.values():
            for parameter in adapter.parameters():
                parameter.requires_grad_(False)
        self.activate(name)
        learning = self[name].parameters()
        for parameter in learning:
            parameter.requires_grad_(True)
        return learning

    # ---- into the weights and out of them

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the active adapter to the weights, in fp32, rounded to their precision: inference then costs nothing.

        The weights from before are kept for `unmerge`, as much memory again as the adapted matrices take: subtracting
        the update would leave 6 to 12 % of the weights another number than before (measured in fp32, bf16 and fp16).
        Where an adapter acts on one side of tied embeddings they are not tied until then.

        Raises:
            OwnLMError: no adapter is active, or the base is quantised, or has no place for the update of a bias.
        """
        self._plain("Merging")
        if self.active is None:
            raise OwnLMError("No adapter is active that could be merged.")
        updates = self[self.active].updates
        for path, update in updates.items():
            base = self._wrap(path).base
            if not isinstance(base, Linear | Embedding):
                raise OwnLMError(
                    f"{path} is quantised: an adapter cannot be merged into it without loss. Merge it into the model "
                    "that was quantised (`ownlm adapter merge`)."
                )
            if update.bias is not None and getattr(base, "bias", None) is None:
                raise OwnLMError(f"The adapter has a bias for {path}, which has none: it cannot be merged.")
        tied = self.decoder.lm_head is None
        if tied and {HEAD, "embed_tokens"} & set(updates):
            self._untie(updates.get(HEAD))
        for path, update in updates.items():
            if path == HEAD and tied:
                continue
            base = self._wrap(path).base
            turned = isinstance(base, Embedding)
            whole = update.merged(base.weight.T if turned else base.weight)
            self._set(base, "weight", whole.T if turned else whole)
            if update.bias is not None:
                self._set(base, "bias", base.bias.float() + update.bias.float() * update.scaling)
        self._place(self[self.active], working=False)
        self.merged = True

    def unmerge(self) -> None:
        """Puts the weights from before back, bit for bit; the adapter is at work beside them again."""
        if not self.merged or self.active is None:
            raise OwnLMError("No adapter is merged.")
        for module, attribute, parameter in self._kept:
            setattr(module, attribute, parameter)
        self._kept, self.merged = [], False
        if self._tied is not None:
            self.decoder.config, self.decoder.lm_head, self._tied = self._tied, None, None
        self._place(self[self.active], working=True)

    def detach(self) -> Decoder:
        """The decoder with its plain modules again: the base, or the merged model for good where one is merged."""
        if not self.merged:
            self.activate(None)
        for path, module in list(self.decoder.named_modules()):
            if isinstance(module, AdaptedLinear | AdaptedEmbedding):
                parent, _, child = path.rpartition(".")
                setattr(self.decoder.get_submodule(parent), child, module.base)
        self._adapters, self._kept, self._tied, self.active, self.merged = {}, [], None, None, False
        return self.decoder

    # ---- inside

    def _plain(self, what: str) -> None:
        if self.merged:
            raise OwnLMError(f"{what} needs the base's own weights: unmerge '{self.active}' first.")

    def _find(self, path: str) -> tuple[nn.Module, str, nn.Module]:
        """The parent of a module, its name there, and the module; a tied head is its embedding."""
        if path == HEAD and self.decoder.lm_head is None:
            path = "embed_tokens"
        parent, _, child = path.rpartition(".")
        owner = self.decoder.get_submodule(parent)
        return owner, child, getattr(owner, child)

    def _check(self, path: str, update: LowRank) -> None:
        try:
            module: Any = self._find(path)[2]
            sizes = module.outputs, module.inputs
        except (AttributeError, IndexError):
            raise OwnLMError(f"The adapter has an update of {path}, which this model does not have.") from None
        wanted = sizes[::-1] if path.startswith("embed_") else sizes
        found = len(update.lora_B), update.lora_A.shape[1]
        if found != wanted:
            raise OwnLMError(f"The adapter's update of {path} has shape {found}, the model's matrix {wanted}.")

    def _wrap(self, path: str) -> Any:
        parent, child, module = self._find(path)
        if not isinstance(module, AdaptedLinear | AdaptedEmbedding):
            embedding = child.startswith("embed_")
            module = AdaptedEmbedding(module) if embedding else AdaptedLinear(module)
            module.train(self.decoder.training)
            setattr(parent, child, module)
        return module

    def _place(self, adapter: Adapter, working: bool) -> None:
        for path, update in adapter.updates.items():
            update.train(self.decoder.training)
            slot = "head_adapter" if path == HEAD and self.decoder.lm_head is None else "adapter"
            setattr(self._wrap(path), slot, update if working else None)

    def _set(self, module: Any, attribute: str, value: Tensor) -> None:
        old: nn.Parameter = getattr(module, attribute)
        self._kept.append((module, attribute, old))
        new = value.to(old.dtype, memory_format=torch.contiguous_format)
        setattr(module, attribute, nn.Parameter(new, requires_grad=old.requires_grad))

    def _untie(self, head: LowRank | None) -> None:
        """Gives the decoder a head of its own: the embedding's matrix, with the head's update if there is one."""
        decoder = self.decoder
        self._place(self[self.active or ""], working=False)
        embedding = self._wrap("embed_tokens").base.weight
        weight = embedding if head is None else head.merged(embedding).to(embedding.dtype)
        made = Linear(decoder.config.width, decoder.config.vocabulary)
        made.weight = nn.Parameter(weight, requires_grad=False)
        self._tied = decoder.config
        decoder.lm_head, decoder.config = made, decoder.config.with_(tied_embeddings=False)
