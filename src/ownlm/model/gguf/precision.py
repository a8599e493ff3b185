"""The types of GGUF tensors: which are written, which tensor gets which, and their numbers to and fro.

The blocks are described in https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as GgmlType
from gguf import LlamaFileType
from torch import Tensor

from ownlm.runtime.errors import OwnLMError

TYPES: dict[str, tuple[GgmlType, LlamaFileType]] = {
    "f32": (GgmlType.F32, LlamaFileType.ALL_F32),
    "f16": (GgmlType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GgmlType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GgmlType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GgmlType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
PLAIN = {GgmlType.F32: torch.float32, GgmlType.F16: torch.float16, GgmlType.BF16: torch.bfloat16}
CHUNK = 1 << 24
"""Weights that are converted at a time."""

_ALWAYS_FP32 = ("position_embd.weight", "ffn_gate_inp.weight", "rope_")
_FINER = ("token_embd.weight", "output.weight")


def check_type(name: str) -> None:
    """
    Raises:
        OwnLMError: no such type, or one that can only be read.
    """
    if name in TYPES:
        return
    known = name.upper() in GgmlType.__members__ or name.upper().rpartition("_")[0] in GgmlType.__members__
    reason = "can be read here, not written" if known else "is no type of GGUF files"
    raise OwnLMError(f"--type {name} {reason}; there is: {', '.join(TYPES)}.")


def type_of(name: str, shape: Sequence[int], file_type: str) -> GgmlType:
    """The type of one tensor `(..., row)` in a file of `file_type`.

    As llama.cpp's own tools have it: norms, biases, learnt positions and routers stay fp32; rows that are no whole
    number of blocks become fp16; and in a q4_0 file the embedding and the head, whose errors hurt most, get a finer
    type (there q6_K, which cannot be written here, so q8_0).
    """
    wanted = TYPES[file_type][0]
    if len(shape) < 2 or any(part in name for part in _ALWAYS_FP32):
        return GgmlType.F32
    if wanted is GgmlType.Q4_0 and name in _FINER:
        wanted = GgmlType.Q8_0
    if wanted in PLAIN or shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    return GgmlType.F16


def bytes_of(shape: Sequence[int], kind: GgmlType) -> int:
    """How many bytes a tensor takes."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def encode(name: str, tensor: Tensor, kind: GgmlType) -> np.ndarray[Any, Any]:
    """The tensor's bytes in the file, as `(bytes,)`; the conversion goes by chunks of rows.

    Raises:
        OwnLMError: a number that fp16 cannot hold.
    """
    out = np.empty(bytes_of(tensor.shape, kind), dtype=np.uint8)
    flat = tensor.reshape(-1, tensor.shape[-1])
    step = max(1, CHUNK // flat.shape[-1])
    row = bytes_of((flat.shape[-1],), kind)
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        out[start * row : start * row + len(part) * row] = _encoded(name, part, kind)
    return out


def _encoded(name: str, part: Tensor, kind: GgmlType) -> np.ndarray[Any, Any]:
    if kind in PLAIN:
        converted = part.to(PLAIN[kind]).contiguous()
        if kind is GgmlType.F16 and bool(converted.isinf().any()):
            raise OwnLMError(f"{name} holds numbers beyond fp16's 65504; write --type bf16 or f32.")
        return converted.view(torch.uint8).numpy().reshape(-1)
    found: np.ndarray[Any, Any] = gguf.quants.quantize(part.float().contiguous().numpy(), kind)
    return found.reshape(-1)


def decode(data: np.ndarray[Any, Any], kind: GgmlType, shape: Sequence[int], quantised_as: torch.dtype) -> Tensor:
    """The numbers of a tensor: fp32, fp16 and bf16 as they are, blocks dequantised and rounded to `quantised_as`.

    Where fp16 cannot hold a number the tensor becomes fp32.

    Raises:
        OwnLMError: a type that the gguf package cannot dequantise.
    """
    if kind in PLAIN:
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        return torch.from_numpy(raw.copy()).view(PLAIN[kind]).reshape(tuple(shape))
    rows = data.reshape(-1, data.shape[-1])
    out = torch.empty(len(rows), shape[-1], dtype=quantised_as)
    step = max(1, CHUNK // shape[-1])
    for start in range(0, len(rows), step):
        try:
            part = torch.from_numpy(gguf.quants.dequantize(rows[start : start + step], kind))
        except NotImplementedError as error:
            raise OwnLMError(f"Tensors of type {kind.name} cannot be read here ({error}).") from None
        converted = part.to(out.dtype)
        if quantised_as is torch.float16 and bool(converted.isinf().any()):
            return decode(data, kind, shape, torch.float32)
        out[start : start + len(part)] = converted
    return out.reshape(tuple(shape))
