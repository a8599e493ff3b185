"""An adapter merged into its base, folder to folder: one tensor at a time, in the base's own layout and precision."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownlm.data.foreign_tokenizer_config import read_templates
from ownlm.model.adapters.config import AdapterConfig
from ownlm.model.adapters.files import Factors, StoredAdapter, check_base, read_stored_adapter
from ownlm.model.adapters.layers import LowRank
from ownlm.model.adapters.targets import HEAD, Target, rank_and_alpha
from ownlm.model.config import DecoderConfig
from ownlm.model.folder import INDEX, PICKLES, PRECISIONS, opened, read_config, weight_files
from ownlm.runtime.atomic import disk_errors
from ownlm.runtime.errors import OwnLMError
from ownlm.store.artifact import MANIFEST

TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class Merged:
    """What was written: tensors in all, how many of them the adapter changed, and bytes of weights."""

    tensors: int
    changed: int
    bytes: int


def merge_folder(adapter: Path, base: Path, out: Path) -> Merged:
    """Writes the model folder `out`: `base` with the adapter of the PEFT folder `adapter` in its weights.

    The sums are computed in fp32 and rounded once, to the base's precision. Tokenizer and settings are the base's; a
    chat template that lies beside the adapter takes the place of the base's. Where an adapter acts on one side of tied
    embeddings, the merged model has a head of its own. Nothing is left at `out` when it fails.

    Raises:
        OwnLMError: `out` exists; either folder cannot be read; the adapter does not fit the base; the base is
            quantised, or has no place for the update of a bias.
        DiskFull: there is no room for the merged model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OwnLMError(f"{out} exists already: give a new folder for the merged model.")
    config, family = read_config(base)
    stored = read_stored_adapter(adapter, config, family)
    job = _Job(stored, base, config)
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            check_base(adapter, stored, {name: job.weight(name) for name in stored.base_weights})
            done = job.write(aside)
            _copy_rest(base, aside, job)
            _put_templates(adapter, base, aside)
            aside.chmod(0o755)
            if out.exists():
                out.rmdir()
            aside.rename(out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return done


@dataclass(frozen=True)
class _Place:
    """A tensor of the base: where it lies, and its name without the variations of older checkpoints."""

    path: Path
    key: str
    name: str
    shape: tuple[int, ...]
    kind: str


class _Job:
    def __init__(self, stored: StoredAdapter, base: Path, config: DecoderConfig) -> None:
        self.stored, self.base = stored, base
        self.prefixes = sorted({name.split(".")[0] for name in stored.targets})
        self.files = weight_files(base)
        self.places = {place.name: place for path in self.files for place in self._places(path)}
        self.changes: dict[str, tuple[Target, LowRank, str]] = {}
        for name, factors in stored.factors.items():
            target = stored.targets[name]
            update = whole_update(stored.config, target, factors)
            if target.kind != "head":
                self._change(f"{name}.weight", target, update, "weight")
            if factors.bias is not None:
                self._change(f"{name}.bias", target, update, "bias")
        sides = {"embed_tokens", HEAD} & {path for name in stored.factors for path in stored.targets[name].modules}
        self.unties = config.tied_embeddings and bool(sides)
        every = stored.targets.values()
        self.head = next(target for target in every if target.modules == (HEAD,))
        self.embedding = next(target for target in every if target.modules == ("embed_tokens",))

    def _places(self, path: Path) -> Iterator[_Place]:
        with opened(path) as file:
            for key in file.offset_keys():
                part = file.get_slice(key)
                module = key.rpartition(".")[0]
                full = (f"{prefix}.{key}" for prefix in self.prefixes if f"{prefix}.{module}" in self.stored.targets)
                name = key if module in self.stored.targets else next(full, key)
                yield _Place(path, key, name, tuple(part.get_shape()), part.get_dtype())

    def _change(self, name: str, target: Target, update: LowRank, what: str) -> None:
        place = self.places.get(name)
        if place is None and what == "bias":
            raise OwnLMError(
                f"The adapter has a bias for {target.name}, which has none in {self.base}: merging needs one."
            )
        if place is None or place.kind not in _NAMES.values():
            reason = "has no" if place is None else f"has a quantised ({place.kind})"
            raise OwnLMError(f"{self.base} {reason} tensor {name}: merge into the model as it was before quantisation.")
        rows = sum(target.outputs)
        turned = target.turned or target.kind == "embedding"
        matrix = (target.inputs, rows) if turned else (rows, target.inputs)
        if place.shape != (wanted := matrix if what == "weight" else (rows,)):
            raise OwnLMError(f"{self.base}: the tensor {name} has shape {place.shape}, not {wanted}.")
        self.changes[name] = target, update, what

    def weight(self, module: str) -> Tensor:
        """The base's own weight of a module of the checkpoint; that of a tied head is the embedding's."""
        name = self.embedding.name if module == self.head.name and f"{module}.weight" not in self.places else module
        return self._tensor(self.places[f"{name}.weight"])

    def _tensor(self, place: _Place) -> Tensor:
        with opened(place.path) as file:
            tensor: Tensor = file.get_tensor(place.key)
            return tensor

    @torch.no_grad()
    def _changed(self, name: str) -> Tensor:
        target, update, what = self.changes[name]
        old = self._tensor(self.places[name])
        if what == "bias":
            assert update.bias is not None
            return (old.float() + update.bias * update.scaling).to(old.dtype)
        turned = target.turned or target.kind == "embedding"
        whole = update.merged(old.T if turned else old)
        return (whole.T if turned else whole).to(old.dtype)

    @torch.no_grad()
    def _own_head(self) -> Tensor:
        """The head's weight of a model whose embeddings were tied."""
        old = self.weight(self.head.name)
        factors = self.stored.factors.get(self.head.name)
        if factors is None:
            return old
        return whole_update(self.stored.config, self.head, factors).merged(old).to(old.dtype)

    def write(self, out: Path) -> Merged:
        """The weights, in files of the base's names."""
        head = f"{self.head.name}.weight"
        total = 0
        for path in self.files:
            places = [place for place in self.places.values() if place.path == path]
            if self.unties:
                places = [place for place in places if place.name != head]
                if path == self.files[-1]:
                    like = self.places[f"{self.embedding.name}.weight"]
                    places.append(_Place(path, head, head, like.shape, like.kind))
            total += self._write_file(out / path.name, places, head)
        changed = len(self.changes) + self.unties
        return Merged(len({*self.places, head} if self.unties else self.places), changed, total)

    def _write_file(self, path: Path, places: list[_Place], head: str) -> int:
        """A safetensors file: the length of the header, the header as JSON, and the tensors one after another."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for place in places:
            start, end = end, end + _bytes(place)
            header[place.key] = {"dtype": place.kind, "shape": place.shape, "data_offsets": (start, end)}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for place in places:
                if self.unties and place.name == head:
                    tensor = self._own_head()
                elif place.name in self.changes:
                    tensor = self._changed(place.name)
                else:
                    tensor = self._tensor(place)
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        return end


def whole_update(config: AdapterConfig, target: Target, factors: Factors) -> LowRank:
    """The update of a target's weight as the checkpoint keeps it, its modules together."""
    rank, alpha = rank_and_alpha(config, target.name)
    fields = [factors.lora_A, factors.lora_B, factors.magnitude, factors.bias]
    a, b, magnitude, bias = (
        None if field is None else torch.nn.Parameter(field.float(), requires_grad=False) for field in fields
    )
    assert a is not None and b is not None
    return LowRank(a, b, config.scaling(rank, alpha), magnitude, bias)


def _bytes(place: _Place) -> int:
    size = {name: dtype.itemsize for dtype, name in _NAMES.items()}
    if place.kind not in size:
        known = ", ".join(PRECISIONS.values())
        raise OwnLMError(f"{place.path}: the tensor {place.key} is stored as {place.kind}; only {known} are merged.")
    return torch.Size(place.shape).numel() * size[place.kind]


def _put_templates(adapter: Path, base: Path, out: Path) -> None:
    """The adapter's chat templates if it has any, else the base's."""
    templates = read_templates(adapter)
    if not templates:
        if (base / MORE_TEMPLATES).is_dir():
            shutil.copytree(base / MORE_TEMPLATES, out / MORE_TEMPLATES)
        return
    for name, template in templates.items():
        path = out / TEMPLATE if name == "default" else out / MORE_TEMPLATES / f"{Path(name).name}.jinja"
        path.parent.mkdir(exist_ok=True)
        path.write_text(template, "utf-8")


def _copy_rest(base: Path, out: Path, job: _Job) -> None:
    """Everything of the base but its weights, with what has changed in config and index."""
    weights = {path.name for path in job.files}
    for path in sorted(base.iterdir()):
        skipped = path.name in weights or path.name == MANIFEST or path.name.startswith("adapter_")
        if path.is_file() and not skipped and path.suffix not in (*PICKLES, ".safetensors", ".gguf"):
            shutil.copyfile(path, out / path.name)
    if not job.unties:
        return
    data = json.loads((base / "config.json").read_text("utf-8"))
    (out / "config.json").write_text(json.dumps({**data, "tie_word_embeddings": False}, indent=2) + "\n", "utf-8")
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text("utf-8"))
        index["weight_map"][f"{job.head.name}.weight"] = job.files[-1].name
        index.setdefault("metadata", {}).pop("total_size", None)
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
