"""Reading GGUF: a file becomes a model folder as Hugging Face users expect it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from ownlm.model.families import families
from ownlm.model.families.stored import Stored
from ownlm.model.files import disk_errors
from ownlm.model.folder import INDEX, PRECISIONS, WEIGHTS
from ownlm.model.gguf.reader import GgufFile
from ownlm.model.gguf.table_to_folder import token_ids, write_tokenizer
from ownlm.model.gguf.tokens import read_table
from ownlm.runtime import atomic

SHARD_BYTES = 2_000_000_000
"""The size from which weights are written as several files: one of them is held in memory."""


def read_gguf(file: Path, folder: Path, quantised_as: torch.dtype = torch.float16) -> GgufFile:
    """Writes config, weights, tokenizer with chat template and generation settings of a GGUF file into `folder`.

    fp32, fp16 and bf16 tensors keep every bit; blocks (q4_k and the like) are dequantised to `quantised_as`.

    Raises:
        OwnLMError: the file is damaged, or holds what the decoder or the tokenizers here do not do.
    """
    source = GgufFile(file, quantised_as)
    family = families()[source.architecture.family(source.config)]
    table = read_table(source.fields)
    ids = token_ids(table)
    data = {**family.write_config(source.config), **ids}
    stored = family.tensors(source.config)
    data["torch_dtype"] = PRECISIONS[source.parameter("layers.0.self_attn.o_proj.weight").dtype]
    write_tokenizer(folder, table, source.config.context, str(file))
    _write_weights(folder, stored, source)
    atomic.write_json(folder / "generation_config.json", {key: each for key, each in ids.items() if each is not None})
    atomic.write_json(folder / "config.json", data)
    return source


def _write_weights(folder: Path, tensors: list[Stored], source: GgufFile) -> None:
    """One safetensors file, or several where they are large; no more than one of them is in memory."""
    shards: list[list[Stored]] = [[]]
    size = total = 0
    for stored in tensors:
        bytes_ = sum(source.bytes_of(name) for name in stored.parameters)
        if shards[-1] and size + bytes_ > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(stored)
        size, total = size + bytes_, total + bytes_
    names = {}
    for index, shard in enumerate(shards, 1):
        name = WEIGHTS if len(shards) == 1 else f"model-{index:05}-of-{len(shards):05}.safetensors"
        names.update({stored.name: name for stored in shard})
        held = {
            stored.name: stored.join([source.parameter(each) for each in stored.parameters]).contiguous().clone()
            for stored in shard
        }
        with atomic.aside(folder / name) as path, disk_errors():
            save_file(held, path, metadata={"format": "pt"})
    if len(shards) > 1:
        atomic.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": names})
