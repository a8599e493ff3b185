"""What a model is made of: parameters, work and memory by its parts, from its config and the headers of its files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder
from ownlm.model.families import Stored, family_of
from ownlm.model.folder import weight_files
from ownlm.runtime.errors import OwnLMError

PartName = Literal["embeddings", "attention", "feed-forward", "norms", "head"]
PARTS: tuple[PartName, ...] = get_args(PartName)
CACHE_BYTES = 2
"""Bytes a number of the key/value cache, in 16 bits."""
LONGEST_HEADER = 100_000_000
"""Bytes, the limit of the format."""
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_QUANTISED = ("_packed", "_scale", "_shape")
"""What the names of a quantised matrix' tensors end in, in place of one tensor with its plain name."""


class Header(NamedTuple):
    """What a safetensors file says of a tensor: its type ("BF16") and shape."""

    kind: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size; types of 8 bits or fewer that are not known here count a byte a number."""
        return math.prod(self.shape) * _SIZES.get(self.kind, 1)


@dataclass(frozen=True)
class Part:
    """One kind of work in a model.

    `at_work` of its `parameters` take part in a token's computation (of a mixture of experts only the chosen ones; a
    tied head works with the embeddings' matrix and has no parameters of its own). `flops`: multiplications and
    additions in matrices for one token. `bytes`: its weights as they are stored. `sentence`: what it does.
    """

    name: PartName
    parameters: int
    at_work: int
    flops: int
    bytes: int
    sentence: str


@dataclass(frozen=True)
class Anatomy:
    """A model by its parts. FLOPs are those of one more token at the end of a text of `length` tokens, itself included.

    `stored` says how many bytes are kept in which type of number ("BF16").
    """

    family: str
    config: DecoderConfig
    length: int
    parts: tuple[Part, ...]
    stored: Mapping[str, int]

    @property
    def parameters(self) -> int:
        """All parameters; a tied embedding counts once."""
        return sum(part.parameters for part in self.parts)

    @property
    def at_work(self) -> int:
        """Parameters that take part in one token's computation."""
        return sum(part.at_work for part in self.parts)

    @property
    def flops(self) -> int:
        """Forward, for one token."""
        return sum(part.flops for part in self.parts)

    @property
    def bytes(self) -> int:
        """The weights as they are stored."""
        return sum(part.bytes for part in self.parts)

    def cache_bytes(self, tokens: int, number: int = CACHE_BYTES) -> int:
        """Memory of the keys and values of a text, `number` bytes each; sliding layers need their window only."""
        config = self.config
        return 2 * config.kv_heads * config.head_dim * number * sum(keys_seen(config, tokens))

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        config = self.config
        return {
            "family": self.family, "parameters": self.parameters, "parameters_at_work": self.at_work,
            "layers": config.layers, "width": config.width, "vocabulary": config.vocabulary,
            "context": config.context, "length": self.length, "flops_per_token": self.flops, "bytes": self.bytes,
            "stored": dict(self.stored),
            "cache": {
                "bytes_per_number": CACHE_BYTES,
                "bytes_at_1000_tokens": self.cache_bytes(1000),
                "bytes_at_full_context": self.cache_bytes(config.context),
            },
            "parts": [vars(part) for part in self.parts],
        }  # fmt: skip


def keys_seen(config: DecoderConfig, tokens: int) -> list[int]:
    """How many positions each layer looks at, for a token at the end of a text of that many, itself included."""
    sliding = set(config.sliding_layers)
    return [min(tokens, config.sliding_window) if layer in sliding else tokens for layer in range(config.layers)]


def part_of(parameter: str) -> PartName:
    """The part that a parameter of the decoder belongs to, by its name."""
    parts = parameter.split(".")
    if "norm" in parts[-2]:
        return "norms"
    if parts[0].startswith("embed"):
        return "embeddings"
    if parts[0] == "lm_head":
        return "head"
    return "attention" if parts[2] == "self_attn" else "feed-forward"


def anatomy_of_folder(folder: Path, length: int = 1000) -> Anatomy:
    """The anatomy of a model folder; reads its config and the headers of its weights, no weight.

    Raises:
        OwnLMError: no model folder, a config that is not understood, or weights that lack a tensor.
    """
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OwnLMError(f"{folder} is no model folder: it has no config.json.") from None
    except ValueError as error:
        raise OwnLMError(f"{path} is not JSON ({error}).") from None
    return anatomy_of(data, folder_headers(folder), str(folder), length)


def folder_headers(folder: Path) -> dict[str, Header]:
    """What the safetensors files of a folder say of their tensors.

    Raises:
        OwnLMError: there is none, or one is cut short.
    """
    return {name: header for path in weight_files(folder) for name, header in _headers(path).items()}


def _headers(path: Path) -> dict[str, Header]:
    """Of one file: 8 bytes with the length of a JSON object, that object, and the numbers, which stay on the disk.

    Unlike the library's reader this maps nothing, so that a file larger than the memory can be looked at.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(size, LONGEST_HEADER) else b""
    try:
        data = json.loads(text)
        data.pop("__metadata__", None)
        headers = {name: Header(each["dtype"], tuple(each["shape"])) for name, each in data.items()}
        end = max((each["data_offsets"][1] for each in data.values()), default=0)
        if 8 + length + end != size or end < sum(header.bytes for header in headers.values()):
            raise ValueError(f"it has {size} bytes, not {8 + length + end}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise OwnLMError(f"{path} is no whole safetensors file ({error}).") from None
    return headers


def anatomy_of(data: Any, headers: Mapping[str, Header], where: str, length: int = 1000) -> Anatomy:
    """The anatomy of the model that a `config.json` describes and whose tensors have these `headers`.

    `length` is cut to the model's context. Raises as `anatomy_of_folder`.
    """
    if length < 1:
        raise OwnLMError(f"A text of {length} tokens has no end to look at; give a length of at least 1.")
    if not isinstance(data, dict):
        raise OwnLMError(f"{where}: config.json is not a JSON object.")
    family = family_of(data, f"{where}/config.json")
    config = family.read_config({key: value for key, value in data.items() if key != "quantization_config"})
    length = min(length, config.context)
    parameters, at_work = _counts(config)
    flops = _flops(config, length)
    sizes, stored = _sizes(family.tensors(config), headers, where)
    sentences = _sentences(config)
    parts = tuple(
        Part(name, parameters[name], at_work[name], flops[name], sizes[name], sentences[name]) for name in PARTS
    )
    return Anatomy(family.model_type, config, length, parts, stored)


def _counts(config: DecoderConfig) -> tuple[dict[PartName, int], dict[PartName, int]]:
    """Parameters of each part: all, and those at work on a token."""
    with torch.device("meta"):
        decoder = Decoder(config)
    every, idle = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    experts = config.experts
    for name, parameter in decoder.named_parameters():
        part = part_of(name)
        every[part] += parameter.numel()
        if experts is not None and ".experts." in name:
            idle[part] += parameter.numel() * (experts.count - experts.active)
    return every, {name: every[name] - (idle[name] // experts.count if experts else 0) for name in PARTS}


def _flops(config: DecoderConfig, length: int) -> dict[PartName, int]:
    """Two for each weight that is multiplied; attention's scores and sums: two each for every number of every key."""
    seen = 4 * config.heads * config.head_dim * sum(keys_seen(config, length))
    attention = 2 * config.layers * config.attention_matrices + seen
    head = 2 * config.vocabulary * config.width
    matrices = 2 * config.matmul_parameters - 2 * config.layers * config.attention_matrices - head
    return {"embeddings": 0, "attention": attention, "feed-forward": matrices, "norms": 0, "head": head}


def _sizes(
    tensors: Iterable[Stored], headers: Mapping[str, Header], where: str
) -> tuple[dict[PartName, int], dict[str, int]]:
    """Bytes of each part, and of each type of number."""
    place = {stored.name: part_of(stored.parameters[0]) for stored in tensors}
    prefixes = sorted({name.split(".")[0] for name in place})
    sizes, kinds = dict.fromkeys(PARTS, 0), dict[str, int]()
    missing = set(place)
    for key, header in headers.items():
        bare = next((key.removesuffix(end) for end in _QUANTISED if key.endswith(end)), key)
        name = next((each for each in (bare, *(f"{prefix}.{bare}" for prefix in prefixes)) if each in place), None)
        if name is None:
            continue  # a buffer, or a tied head that is stored too
        missing.discard(name)
        sizes[place[name]] += header.bytes
        kinds[header.kind] = kinds.get(header.kind, 0) + header.bytes
    if missing:
        raise OwnLMError(f"The weights of {where} do not fit its config: they lack {', '.join(sorted(missing))}.")
    return sizes, kinds


def _sentences(config: DecoderConfig) -> dict[PartName, str]:
    """What each part does, for people who see a model from inside for the first time."""
    places = f" and each of {config.context:,} places" if config.learned_positions else ""
    window = ""
    if config.sliding_layers:
        layers = "every layer" if len(config.sliding_layers) == config.layers else (
            f"{len(config.sliding_layers)} of {config.layers} layers"
        )  # fmt: skip
        window = f" In {layers} it sees the last {config.sliding_window:,} only."
    experts = ""
    if config.experts is not None:
        experts = f" A router picks {config.experts.active} of {config.experts.count} experts for each."
    tied = " It shares the embeddings' matrix." if config.tied_embeddings else ""
    return {
        "embeddings": f"Turn each of {config.vocabulary:,} tokens{places} into {config.width:,} numbers.",
        "attention": f"Lets a token gather what it needs from those before it.{window}",
        "feed-forward": f"Works on what a token has gathered, each token by itself.{experts}",
        "norms": "Keep the numbers in a range that suits the layers.",
        "head": f"Scores each of {config.vocabulary:,} tokens as the next one.{tied}",
    }
