"""Writing GGUF: the one file that llama.cpp, Ollama and their relatives open, tokenizer and chat template inside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from ownlm.model.checkpoint import Checkpoint
from ownlm.model.families.stored import Stored
from ownlm.model.gguf.architectures import architecture_of, fit
from ownlm.model.gguf.precision import TYPES, bytes_of, check_type, encode, type_of
from ownlm.model.gguf.rope import rope_tensors
from ownlm.model.gguf.table_from_folder import table_of
from ownlm.model.gguf.tokens import TokenTable
from ownlm.runtime import atomic


@dataclass(frozen=True)
class Written:
    """What a GGUF file holds: its size, its context in tokens, how many tensors there are of each type, and `notes`.

    A note is a sentence on where llama.cpp does otherwise than the model's own folder says.
    """

    bytes: int
    context: int
    tensors: dict[str, int]
    notes: tuple[str, ...]


class GgufPlan:
    """A model folder as the GGUF file that is to be written: everything is checked before a byte is.

    `file_type` is one of `TYPES`; see `type_of` for which tensors differ from it.

    Raises:
        OwnLMError: a type that cannot be written, a folder that is not whole, or anything in the model or its tokenizer
            that llama.cpp would compute otherwise.
    """

    def __init__(self, folder: Path, file_type: str) -> None:
        check_type(file_type)
        self.file_type = file_type
        source = Checkpoint(folder)
        self.architecture = architecture_of(source.family.model_type)
        self.config, notes = fit(self.architecture, source.config)
        self.table, table_notes = table_of(folder, self.config.vocabulary)
        self.notes = (*notes, *table_notes)
        stored = self.architecture.tensors(self.config)
        self._tensors = [_Planned(each, source, file_type) for each in stored]
        self._divisors = rope_tensors(self.config)

    @property
    def bytes(self) -> int:
        """The size of the tensors; metadata and vocabulary come on top."""
        return sum(each.bytes for each in self._tensors)

    def write(self, file: Path, *, name: str = "", licence: str = "") -> Written:
        """Writes the file tensor by tensor; a crash leaves what was there before.

        `name` and `licence` go into the metadata.

        Raises:
            OwnLMError: a number that the type cannot hold.
        """
        with atomic.aside(file) as path:
            writer = gguf.GGUFWriter(path, self.architecture.name)
            try:
                self._describe(writer, name, licence)
                for each in self._tensors:
                    writer.add_tensor_info(each.name, each.shape, _FLOAT, each.bytes, each.kind)
                for key, tensor in self._divisors.items():
                    writer.add_tensor_info(key, tensor.shape, _FLOAT, tensor.nbytes)
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
                for each in self._tensors:
                    writer.write_tensor_data(encode(each.name, each.tensor(), each.kind))
                for tensor in self._divisors.values():
                    writer.write_tensor_data(tensor.numpy())
            finally:
                writer.close()
        counts = Counter(each.kind.name.lower() for each in self._tensors)
        return Written(file.stat().st_size, self.config.context, dict(counts), self.notes)

    def _describe(self, writer: gguf.GGUFWriter, name: str, licence: str) -> None:
        """The metadata: what people want to know, the network's shape, the vocabulary."""
        writer.add_type("model")
        writer.add_name(_harmless(name, self.table))
        writer.add_license(licence)
        writer.add_file_type(int(TYPES[self.file_type][1]))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in self.architecture.keys(self.config).items():
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            else:
                writer.add_string(key, value)
        self.table.write(writer)


def write_gguf(folder: Path, file: Path, file_type: str, *, name: str = "", licence: str = "") -> Written:
    """Writes a model folder as a GGUF file; see `GgufPlan`."""
    return GgufPlan(folder, file_type).write(file, name=name, licence=licence)


_FLOAT: Any = torch.empty(0).numpy().dtype
"""fp32, for tensors whose true type is given beside."""


class _Planned:
    """A tensor of the file: its shape and type are known before it is read."""

    def __init__(self, stored: Stored, source: Checkpoint, file_type: str) -> None:
        self.stored, self.source = stored, source
        shapes = [torch.empty(source.shape(each), device="meta") for each in stored.parameters]
        self.name, self.shape = stored.name, tuple(stored.join(shapes).shape)
        self.kind = type_of(self.name, self.shape, file_type)
        self.bytes = bytes_of(self.shape, self.kind)

    def tensor(self) -> Tensor:
        """Its numbers, `shape`."""
        return self.stored.join([self.source.parameter(each) for each in self.stored.parameters])


def _harmless(name: str, table: TokenTable) -> str:
    """A name with "phi-3" in it makes llama.cpp look for the tokens of Phi-3, and fail where there are none."""
    return name if "</s>" in table.texts else name.replace("hi-3", "hi 3").replace("hi3", "hi 3")
