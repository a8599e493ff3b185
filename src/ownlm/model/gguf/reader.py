"""Opening a GGUF file: metadata and tensors, each read when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GgmlType
from torch import Tensor

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.gguf.architectures import ARCHITECTURES
from ownlm.model.gguf.fields import Fields
from ownlm.model.gguf.precision import PLAIN, decode
from ownlm.model.gguf.rope import DIVISORS, LONG, SHORT
from ownlm.runtime.errors import OwnLMError


class _Bounded(gguf.GGUFReader):
    """The package's reader, bounded and faster.

    It would take what lies behind the end of a file for empty, and count to absurd lengths; and slicing a `memmap`
    costs ten times as much as slicing the same bytes as a plain array, half a million times in a usual vocabulary.
    """

    _plain: np.ndarray[Any, Any] | None = None

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> np.ndarray[Any, Any]:
        if self._plain is None:
            self._plain = self.data.view(np.ndarray)
        kind = np.dtype(dtype)
        end = int(offset) + kind.itemsize * int(count)
        if int(count) < 0 or end > len(self._plain):
            raise ValueError(f"it ends at byte {len(self._plain):,}, but goes on to {end:,}")
        order = self.byte_order if override_order is None else override_order
        return self._plain[int(offset) : end].view(kind if order == "I" else kind.newbyteorder(order))


class GgufFile:
    """A GGUF file as a decoder's config and parameters.

    `quantised_as` is the precision that blocks are dequantised to.

    Raises:
        OwnLMError: no GGUF file, one that is cut short or damaged, an architecture or a tensor's type that is not read
            here, or tensors that are missing, unexpected or of another shape (each named).
    """

    def __init__(self, path: Path, quantised_as: torch.dtype = torch.float16) -> None:
        self.path, self.quantised_as = path, quantised_as
        try:
            opened = _Bounded(path)
            values = {name: each.contents() for name, each in opened.fields.items()}
        except OwnLMError:
            raise
        except (ValueError, KeyError, IndexError, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise OwnLMError(f"{path} is no whole GGUF file ({error}).") from None
        self.fields = Fields(values, str(path))
        if (count := self.fields.integer("split.count", 1)) > 1:
            raise OwnLMError(f"{path} is one of {count} parts; join them with llama.cpp's llama-gguf-split --merge.")
        name = self.fields.architecture
        if name not in ARCHITECTURES:
            raise OwnLMError(
                f"{path} holds a model of the architecture {name!r}; read here are {', '.join(sorted(ARCHITECTURES))}."
            )
        self.architecture = ARCHITECTURES[name]
        self.tensors = {tensor.name: tensor for tensor in opened.tensors}
        self.config = self._config()
        self._check()
        self._last: tuple[str, Tensor] | None = None

    def _config(self) -> DecoderConfig:
        embedding = self.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise OwnLMError(f"{self.path} lacks the tensor token_embd.weight.")
        divisors = {name: self.tensor(name) for name in (DIVISORS, SHORT, LONG) if name in self.tensors}
        return self.architecture.config(self.fields, self.tensors, divisors, int(embedding.shape[1]))

    def _check(self) -> None:
        with torch.device("meta"):
            parameters = dict(Decoder(self.config).named_parameters())
        expected = {stored.name: stored for stored in self.architecture.tensors(self.config)}
        extra = (DIVISORS, SHORT, LONG)
        missing = sorted(set(expected) - set(self.tensors))
        unexpected = sorted(name for name in set(self.tensors) - set(expected) if name not in extra)
        if missing or unexpected:
            parts = [f"lacks {', '.join(missing)}"] * bool(missing)
            parts += [f"has unexpected {', '.join(unexpected)}"] * bool(unexpected)
            raise OwnLMError(f"The tensors in {self.path} do not fit its metadata: it {' and '.join(parts)}.")
        for name, stored in expected.items():
            wanted = tuple(stored.join([parameters[each] for each in stored.parameters]).shape)
            if self.shape(name) != wanted:
                raise OwnLMError(f"{self.path}: the tensor {name} has shape {self.shape(name)}, not {wanted}.")
        self._stored = {name: stored for stored in expected.values() for name in stored.parameters}
        self._sizes = {name: parameter.numel() for name, parameter in parameters.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, `(..., row)`: the reverse of the file's order."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape))

    def tensor(self, name: str) -> Tensor:
        """The numbers of a tensor."""
        found = self.tensors[name]
        return decode(found.data, GgmlType(found.tensor_type), self.shape(name), self.quantised_as)

    def parameter(self, name: str) -> Tensor:
        """One parameter of the decoder. What shares its tensor is kept until another one is asked for."""
        stored = self._stored[name]
        if self._last is None or self._last[0] != stored.name:
            self._last = stored.name, self.tensor(stored.name)
        return stored.split(self._last[1])[stored.parameters.index(name)]

    def bytes_of(self, name: str) -> int:
        """How many bytes a parameter takes once it is read."""
        kind = GgmlType(self.tensors[self._stored[name].name].tensor_type)
        return self._sizes[name] * PLAIN.get(kind, self.quantised_as).itemsize

    @property
    def bytes(self) -> int:
        """How many bytes all parameters take once they are read."""
        return sum(map(self.bytes_of, self._sizes))

    @property
    def types(self) -> dict[str, int]:
        """How many tensors there are of each type."""
        counts: dict[str, int] = {}
        for tensor in self.tensors.values():
            name = GgmlType(tensor.tensor_type).name.lower()
            counts[name] = counts.get(name, 0) + 1
        return counts
