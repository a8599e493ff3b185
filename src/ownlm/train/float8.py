"""Matrix products of the blocks in float8 on NVIDIA GPUs that have it, by torchao; an option."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn

from ownlm.model.decoder import Decoder
from ownlm.model.layers import Linear
from ownlm.runtime.errors import OwnLMError

_FIRST_CAPABILITY = (8, 9)
"""Ada and Hopper are the first with float8 multipliers."""
_MULTIPLE = 16
"""What both sizes of a matrix must be a multiple of."""


def use_float8(decoder: Decoder, device: str, tensor_parallel: int = 1, emulate: bool = False) -> int:
    """Multiplies in float8 (Micikevicius et al. 2022, arXiv 2209.05433), one scale a tensor, worked out at each use.

    Replaces the linear layers of the blocks, in place, and returns how many. Master weights, embeddings, head, norms
    and attention stay as they are, and so do all names. To be called before `kernels.use` and `shard`. `emulate`
    rounds to float8 and multiplies in fp32, on any device, to see what float8 does to a loss curve.

    Raises:
        OwnLMError: torchao is missing, the GPU has no float8, the decoder does not compute in bfloat16, matrices are
            divided by tensor parallelism, or none has sizes that are multiples of 16.
    """
    _require(decoder, device, tensor_parallel, emulate)
    torchao = _torchao()
    names = {name for name, module in decoder.named_modules() if _suits(name, module)}
    if not names:
        raise OwnLMError(f"float8 needs matrices whose sizes are multiples of {_MULTIPLE}; this model has none.")
    config = torchao.Float8LinearConfig(emulate=emulate)
    torchao.convert_to_float8_training(decoder, module_filter_fn=lambda _, name: name in names, config=config)
    return len(names)


def leave_float8(decoder: Decoder) -> None:
    """Puts plain linear layers back, with the weights that were trained; a decoder that has them is left alone."""
    for name, module in list(decoder.named_modules()):
        if isinstance(module, nn.Linear) and not isinstance(module, Linear):
            with torch.device("meta"):
                plain = Linear(module.in_features, module.out_features, module.bias is not None)
            plain.weight, plain.bias = module.weight, module.bias
            owner, _, last = name.rpartition(".")
            setattr(decoder.get_submodule(owner), last, plain)


def require_float8(device: str | None, tensor_parallel: int = 1) -> None:
    """What can be known before there is a model; `device` None is the fastest one here.

    Raises:
        OwnLMError: torchao is missing, the GPU has no float8, or matrices are divided by tensor parallelism.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _fits(device, tensor_parallel)
    _torchao()


def _fits(device: str, tensor_parallel: int) -> None:
    if tensor_parallel > 1:
        raise OwnLMError("float8 and --tensor-parallel do not go together. Leave one of them out.")
    if torch.device(device).type != "cuda":
        raise OwnLMError(f"float8 needs an NVIDIA GPU; this run is on {device}. Leave float8 out.")
    if (capability := torch.cuda.get_device_capability(device)) < _FIRST_CAPABILITY:
        raise OwnLMError(
            f"float8 needs a GPU of compute capability 8.9 or later (L4, RTX 40, H100, ...); {device} has "
            f"{capability[0]}.{capability[1]}. Leave float8 out."
        )


def _require(decoder: Decoder, device: str, tensor_parallel: int, emulate: bool) -> None:
    if emulate and tensor_parallel == 1:
        return
    _fits(device, tensor_parallel)
    if decoder.compute_dtype != torch.bfloat16:
        raise OwnLMError("float8 is for models that otherwise compute in bfloat16. Choose that precision, or leave it.")


def _suits(name: str, module: nn.Module) -> bool:
    """Linear layers of the blocks but an expert's router, whose choices a rounding would change."""
    if not isinstance(module, Linear) or not name.startswith("layers.") or name.endswith(".router"):
        return False
    return module.inputs % _MULTIPLE == 0 and module.outputs % _MULTIPLE == 0


def _torchao() -> Any:
    try:
        return import_module("torchao.float8")
    except ImportError:
        raise OwnLMError("float8 needs torchao: install it (pip install torchao), or leave float8 out.") from None
