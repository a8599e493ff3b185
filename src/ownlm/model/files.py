"""Model folders: written as Hugging Face users expect, read tensor by tensor from memory-mapped safetensors."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.families import Family, Stored, family_of
from ownlm.model.families.qwen3 import family as default_family
from ownlm.model.layers import Embedding, Linear
from ownlm.runtime import atomic
from ownlm.runtime.errors import OwnLMError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""The size from which weights are written as several files, as Hugging Face does."""
MAPPED_BYTES = 64 << 20
"""How much of a file is mapped at a time: what was read counts as the process' memory until it is unmapped."""
PRECISIONS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Buffers that older checkpoints carry along; they follow from the config.
_DERIVED = re.compile(r"(^|\.)((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq)$")

Replace = Callable[[str, nn.Module], nn.Module]


def save_model(folder: Path, decoder: Decoder, tokenizer: AnyTokenizer, family: Family = default_family) -> None:
    """Writes config, weights in their precision, tokenizer with chat template, and generation settings into `folder`.

    Raises:
        OwnLMError: `family` has not all the choices of the decoder's config.
    """
    ends = {
        "eos_token_id": tokenizer.end_of_turn,
        "pad_token_id": tokenizer.end_of_text,
        "bos_token_id": tokenizer.begin_of_text,
    }
    save_weights(folder, decoder, family, ends)
    generation = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, **ends, "eos_token_id": sorted(tokenizer.stops)}
    atomic.write_json(folder / "generation_config.json", generation)
    tokenizer.save(folder, decoder.config.context)


def save_weights(
    folder: Path, decoder: Decoder, family: Family = default_family, more: dict[str, Any] | None = None
) -> None:
    """Writes `config.json` (with the keys of `more`) and the weights, in several files where they are large.

    Raises:
        OwnLMError: `family` has not all the choices of the decoder's config.
    """
    config = decoder.config
    data = family.write_config(config)
    if (read := family.read_config(data)) != config:
        raise OwnLMError(f"This decoder cannot be written as {family.model_type}: {_differences(config, read)}.")
    parameters = dict(decoder.named_parameters())
    data["torch_dtype"] = PRECISIONS[next(iter(parameters.values())).dtype]
    shards: list[list[Stored]] = [[]]
    size = total = 0
    for stored in family.tensors(config):
        bytes_ = sum(parameters[name].nbytes for name in stored.parameters)
        if shards[-1] and size + bytes_ > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(stored)
        size, total = size + bytes_, total + bytes_
    weight_map = {}
    for index, shard in enumerate(shards, 1):
        name = WEIGHTS if len(shards) == 1 else f"model-{index:05}-of-{len(shards):05}.safetensors"
        weight_map.update({stored.name: name for stored in shard})
        tensors = {
            stored.name: stored.join([parameters[each].detach() for each in stored.parameters]).contiguous()
            for stored in shard
        }
        with atomic.aside(folder / name) as path, _disk_errors():
            save_file(tensors, path, metadata={"format": "pt"})
    if len(shards) > 1:
        atomic.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    atomic.write_json(folder / "config.json", {**data, **(more or {})})


@contextmanager
def _disk_errors() -> Iterator[None]:
    """safetensors reports a full disk as an error of its own kind."""
    try:
        yield
    except SafetensorError as error:
        if f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _differences(config: DecoderConfig, read: DecoderConfig) -> str:
    fields = [name for name in vars(config) if getattr(config, name) != getattr(read, name)]
    return ", ".join(f"its {name} is {getattr(config, name)!r}" for name in fields)


def read_config(folder: Path) -> tuple[DecoderConfig, Family]:
    """The decoder that a folder's `config.json` describes, and its family.

    Raises:
        OwnLMError: no such file, no JSON, or a config that is not understood.
    """
    path = folder / "config.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OwnLMError(f"{folder} is no model folder: it has no config.json.") from None
    except ValueError as error:
        raise OwnLMError(f"{path} is not JSON ({error}).") from None
    if not isinstance(data, dict):
        raise OwnLMError(f"{path} is not a JSON object.")
    family = family_of(data, str(path))
    return family.read_config(data), family


def load_model(
    folder: Path,
    compute_dtype: torch.dtype = torch.float32,
    dtype: torch.dtype | None = None,
    replace: Replace | None = None,
) -> Decoder:
    """Builds the decoder of a model folder and fills it from its safetensors files.

    `dtype` converts the weights; None keeps each in its stored precision. `replace` gets the name and the module of
    each matrix and embedding once it is filled, and gives what takes its place (a quantised one, say), so that the
    whole model is never there twice.

    Raises:
        OwnLMError: pickles instead of safetensors, a file cut short, or tensors that are missing, unexpected (each
            named), of another shape than the config says, or no floating-point numbers.
    """
    config, family = read_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config, compute_dtype)
    reader = _Reader(folder, decoder, family, dtype, replace)
    for name, tensor in stored_tensors(folder):
        reader.take(name, tensor)
    reader.finish()
    return decoder


class _Reader:
    """Fills a decoder on the meta device with the tensors of a checkpoint, in whatever order they come."""

    def __init__(
        self, folder: Path, decoder: Decoder, family: Family, dtype: torch.dtype | None, replace: Replace | None
    ) -> None:
        self.folder, self.decoder, self.dtype, self.replace = folder, decoder, dtype, replace
        self.expected = {stored.name: stored for stored in family.tensors(decoder.config)}
        self.prefixes = sorted({name.split(".")[0] for name in self.expected})
        self.parameters = dict(decoder.named_parameters())
        self.seen: set[str] = set()
        self.unexpected: list[str] = []
        self.head: tuple[str, Tensor] | None = None
        untied = family.tensors(decoder.config.with_(tied_embeddings=False))
        self.head_name = next(stored.name for stored in untied if stored.parameters == ("lm_head.weight",))

    def take(self, name: str, tensor: Tensor) -> None:
        """Puts one tensor of the checkpoint where it belongs."""
        stored = self._stored(name)
        if stored is None:
            if name == self.head_name:
                self.head = name, tensor.clone()
            elif not _DERIVED.search(name):
                self.unexpected.append(name)
            return
        if stored.name in self.seen:
            raise OwnLMError(f"{self.folder}: the tensor {name} is there twice.")
        if tensor.dtype not in PRECISIONS:
            raise OwnLMError(f"{self.folder}: the tensor {name} is stored as {tensor.dtype}, which is not read here.")
        wanted = stored.join([self.parameters[each] for each in stored.parameters]).shape
        if tensor.shape != wanted:
            raise OwnLMError(f"{self.folder}: the tensor {name} has shape {tuple(tensor.shape)}, not {tuple(wanted)}.")
        self.seen.add(stored.name)
        for parameter, part in zip(stored.parameters, stored.split(tensor), strict=True):
            self._fill(parameter, part)

    def _stored(self, name: str) -> Stored | None:
        """By its full name, or without the base model's prefix, as checkpoints of the bare base model are written."""
        candidates = (name, *(f"{prefix}.{name}" for prefix in self.prefixes))
        return next((self.expected[each] for each in candidates if each in self.expected), None)

    def _fill(self, name: str, part: Tensor) -> None:
        path, _, attribute = name.rpartition(".")
        module = self.decoder.get_submodule(path)
        # A copy in memory of its own: the mapped file is let go.
        own = torch.empty(part.shape, dtype=self.dtype or part.dtype).copy_(part)
        setattr(module, attribute, nn.Parameter(own))
        if self.replace is None or not isinstance(module, Linear | Embedding):
            return
        if all(not parameter.is_meta for parameter in module.parameters()):
            parent, _, child = path.rpartition(".")
            setattr(self.decoder.get_submodule(parent), child, self.replace(path, module))

    def finish(self) -> None:
        """Raises `OwnLMError` for what is missing, unexpected or contradictory."""
        missing = sorted(set(self.expected) - self.seen)
        if missing or self.unexpected:
            parts = [f"lacks {', '.join(missing)}"] * bool(missing)
            parts += [f"has unexpected {', '.join(sorted(self.unexpected))}"] * bool(self.unexpected)
            raise OwnLMError(f"The weights in {self.folder} do not fit its config: it {' and '.join(parts)}.")
        if self.head is not None and self.replace is None:
            name, tensor = self.head
            if not torch.equal(tensor.to(self.decoder.head.dtype), self.decoder.head):
                raise OwnLMError(
                    f"{self.folder}: its config ties the head to the embedding, but {name} holds other numbers."
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model: those of the index, or the one of the usual name, or all.

    Raises:
        OwnLMError: there is none (only pickles, say), or the index names one that is missing.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OwnLMError(f"{index} is no index of safetensors files ({error!r}).") from None
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise OwnLMError(f"{index} names {name}, which is not in {folder}.")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    paths = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter"))
    if not paths:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        reason = (
            f"only pickles ({', '.join(pickles)}), which can run code when they are opened; convert them to safetensors"
            if pickles
            else "no .safetensors file"
        )
        raise OwnLMError(f"{folder} has {reason}.")
    return paths


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model folder; each is a view of the mapped file, to be copied before the next is asked for."""
    for path in weight_files(folder):
        for names in _groups(path):
            with opened(path) as file:
                for name in names:
                    yield name, file.get_tensor(name)


def opened(path: Path) -> Any:
    """A safetensors file.

    Raises:
        OwnLMError: it is cut short, its tensors overlap, or it is something else.
    """
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise OwnLMError(f"{path} is no whole safetensors file ({error}).") from None


def _groups(path: Path) -> Iterator[list[str]]:
    """The file's tensors in groups of at most `MAPPED_BYTES` (or of one)."""
    names: list[str] = []
    size = 0
    with opened(path) as file:
        sizes = {name: _bytes(file.get_slice(name)) for name in file.offset_keys()}
    for name, bytes_ in sizes.items():
        if names and size + bytes_ > MAPPED_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += bytes_
    if names:
        yield names


def _bytes(part: Any) -> int:
    count = 1
    for length in part.get_shape():
        count *= length
    return count * (4 if part.get_dtype() == "F32" else 2)
