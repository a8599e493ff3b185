"""The weights of a model folder: checked from the headers alone, then read one tensor at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownlm.model.decoder import Decoder
from ownlm.model.families import Stored
from ownlm.model.folder import FLOATS, config_data, opened, read_config, weight_files
from ownlm.runtime.errors import OwnLMError

MAPPED_BYTES = 64 << 20
"""How much of a file is mapped at a time: what was read counts as the process' memory until it is unmapped."""
_DERIVED = re.compile(r"(^|\.)((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq)$")
"""Buffers that older checkpoints carry along; they follow from the config."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its file, its name there, and what the file's header says of it."""

    path: Path
    key: str
    shape: tuple[int, ...]
    kind: str

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * (4 if self.kind == "F32" else 2)


class Checkpoint:
    """The weights of a model folder by the names of the decoder's parameters; none is loaded before it is asked for.

    Raises:
        OwnLMError: a file that is cut short or no safetensors file, tensors that are missing, unexpected or there twice
            (each named), or of another shape than the config says; quantised weights; as `read_config` and
            `weight_files`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.family = read_config(folder)
        if config_data(folder).get("quantization_config") is not None:
            raise OwnLMError(f"{folder} holds quantised weights; this needs the model that they were made from.")
        with torch.device("meta"):
            decoder = Decoder(self.config)
        expected = {stored.name: stored for stored in self.family.tensors(self.config)}
        self._parameters = shapes = dict(decoder.named_parameters())
        self._stored = {name: stored for stored in expected.values() for name in stored.parameters}
        self._places, self._head = _places(folder, expected, self._head_name())
        for name, place in self._places.items():
            wanted = tuple(expected[name].join([shapes[each] for each in expected[name].parameters]).shape)
            if place.shape != wanted:
                raise OwnLMError(f"{place.path}: the tensor {place.key} has shape {place.shape}, not {wanted}.")
            if place.kind not in FLOATS:
                raise OwnLMError(
                    f"{place.path}: the tensor {place.key} is stored as {place.kind}, which is not read here."
                )

    def _head_name(self) -> str:
        """What the checkpoint calls a head of its own."""
        untied = self.family.tensors(self.config.with_(tied_embeddings=False))
        return next(stored.name for stored in untied if "lm_head.weight" in stored.parameters)

    def _known(self, name: str) -> str:
        return "embed_tokens.weight" if name == "lm_head.weight" and self.config.tied_embeddings else name

    @property
    def precision(self) -> torch.dtype:
        """The precision in which most of its numbers are stored."""
        sizes: dict[str, int] = {}
        for place in self._places.values():
            sizes[place.kind] = sizes.get(place.kind, 0) + place.bytes
        return FLOATS[max(sizes, key=sizes.__getitem__)]

    def shape(self, name: str) -> torch.Size:
        """The shape of a parameter."""
        return self._parameters[self._known(name)].shape

    def parameter(self, name: str) -> Tensor:
        """One parameter in its stored precision, as a view of the mapped file; a tied head is the embedding."""
        name = self._known(name)
        stored = self._stored[name]
        place = self._places[stored.name]
        with opened(place.path) as file:
            return stored.split(file.get_tensor(place.key))[stored.parameters.index(name)]

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """All parameters in the order of the files; each is a view of the mapped file, to be copied at once.

        Raises:
            OwnLMError: the config ties the head to the embedding, but a head of its own is there and differs.
        """
        by_name = {stored.name: stored for stored in self._stored.values()}
        for names in self._groups():
            with opened(self._places[names[0]].path) as file:
                for name in names:
                    stored = by_name[name]
                    yield from zip(
                        stored.parameters, stored.split(file.get_tensor(self._places[name].key)), strict=True
                    )
        if self._head is not None:
            self._compare_head(self._head)

    def _groups(self) -> Iterator[list[str]]:
        """Tensors of one file each, of at most `MAPPED_BYTES` together (or a larger one alone)."""
        group: list[str] = []
        size = 0
        for name, place in self._places.items():
            if group and (place.path != self._places[group[0]].path or size + place.bytes > MAPPED_BYTES):
                yield group
                group, size = [], 0
            group.append(name)
            size += place.bytes
        if group:
            yield group

    def _compare_head(self, head: Place) -> None:
        with opened(head.path) as file:
            tensor = file.get_tensor(head.key)
        embedding = self.parameter("embed_tokens.weight")
        if tensor.shape != embedding.shape or not torch.equal(tensor, embedding):
            raise OwnLMError(
                f"{head.path}: the config ties the head to the embedding, but {head.key} holds other numbers."
            )


def _places(folder: Path, expected: dict[str, Stored], head: str) -> tuple[dict[str, Place], Place | None]:
    """Where each expected tensor lies, from the files' headers; and a head that a tied model has no use for.

    A checkpoint of the bare base model leaves the prefix out of its tensors' names.
    """
    prefixes = sorted({name.split(".")[0] for name in expected})
    found: dict[str, Place] = {}
    unexpected, spare = [], None
    for path in weight_files(folder):
        with opened(path) as file:
            for key in file.offset_keys():
                part: Any = file.get_slice(key)
                place = Place(path, key, tuple(part.get_shape()), part.get_dtype())
                candidates = (key, *(f"{prefix}.{key}" for prefix in prefixes))
                name = next((each for each in candidates if each in expected), None)
                if name is None:
                    if key == head:
                        spare = place
                    elif not _DERIVED.search(key):
                        unexpected.append(key)
                    continue
                if name in found:
                    raise OwnLMError(f"{folder}: the tensor {key} is there twice.")
                found[name] = place
    missing = sorted(set(expected) - set(found))
    if missing or unexpected:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has unexpected {', '.join(sorted(unexpected))}"] * bool(unexpected)
        raise OwnLMError(f"The weights in {folder} do not fit its config: it {' and '.join(parts)}.")
    return found, spare
