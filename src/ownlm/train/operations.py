"""Which of the operations that training needs a device lacks, found by trying each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ownlm.model.cross_entropy import linear_cross_entropy
from ownlm.train.muon import Muon


@dataclass(frozen=True)
class Missing:
    """An operation that a device lacks, what goes without it, and what torch says."""

    operation: str
    instead: str
    reason: str


@dataclass(frozen=True)
class _Trial:
    operation: str
    instead: str
    run: Callable[[str], object]


def missing_operations(device: str) -> list[Missing]:
    """What training on `device` ("cpu", "cuda", "mps") must do without; takes a second or two, compiles nothing."""
    found = []
    for trial in _TRIALS:
        try:
            trial.run(device)
        except Exception as error:  # torch raises RuntimeError, NotImplementedError, TypeError and AssertionError here
            lines = str(error).strip().splitlines()
            found.append(Missing(trial.operation, trial.instead, lines[0] if lines else type(error).__name__))
    return found


def _ones(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device, requires_grad=dtype.is_floating_point)


def _product(device: str) -> None:
    _finish(_ones(device, 32, 32, dtype=torch.bfloat16) @ _ones(device, 32, 32, dtype=torch.bfloat16))


def _attention(device: str) -> None:
    queries = _ones(device, 1, 4, 8, 16)
    keys, values = _ones(device, 1, 2, 8, 16), _ones(device, 1, 2, 8, 16)
    out = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
    _finish(out)


def _masked_attention(device: str) -> None:
    heads = _ones(device, 1, 2, 8, 16)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool, device=device).tril()
    _finish(functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask))


def _cross_entropy(device: str) -> None:
    targets = torch.zeros(8, dtype=torch.long, device=device)
    hidden, head = _ones(device, 8, 16), _ones(device, 32, 16)
    _finish(linear_cross_entropy(hidden, head, targets, torch.ones(8, device=device)))


def _muon(device: str, dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.ones(16, 32, device=device))
    weight.grad = torch.ones_like(weight)
    Muon([weight], lr=0.1, dtype=dtype).step()
    _finish(weight)


def _fused_adamw(device: str) -> None:
    weight = nn.Parameter(torch.ones(16, device=device))
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], fused=True).step()
    _finish(weight)


def _long_sum(device: str) -> None:
    _ones(device, 8, dtype=torch.float64).sum().item()


def _float8(device: str) -> None:
    kind, capability = torch.device(device).type, (0, 0)
    if kind == "cuda":
        capability = torch.cuda.get_device_capability(device)
    if capability < (8, 9):
        raise RuntimeError("float8 multipliers come with NVIDIA GPUs of compute capability 8.9 and later")


def _processes(device: str) -> None:
    if not torch.distributed.is_available():
        raise RuntimeError("this torch was built without torch.distributed")
    if torch.device(device).type not in ("cpu", "cuda"):
        raise RuntimeError(f"torch has no collective operations for {device}")


def _finish(result: Tensor) -> None:
    """Runs the backward pass, and reads a number, which waits for the device."""
    result.float().sum().backward()  # type: ignore[no-untyped-call]
    float(result.detach().float().sum())


_TRIALS = (
    _Trial("bfloat16 matrix products", "float32", _product),
    _Trial("attention with grouped queries", "the tiled attention of this package", _attention),
    _Trial("attention with a mask", "the tiled attention of this package", _masked_attention),
    _Trial("cross-entropy in chunks", "nothing: training cannot run", _cross_entropy),
    _Trial("Muon in float32", "nothing: training cannot run", lambda device: _muon(device, torch.float32)),
    _Trial("Muon in bfloat16", "Muon in float32", lambda device: _muon(device, torch.bfloat16)),
    _Trial("AdamW as one kernel", "AdamW in several kernels", _fused_adamw),
    _Trial("float64", "sums on the processor", _long_sum),
    _Trial("float8 matrix products", "bfloat16", _float8),
    _Trial("training in several processes", "one process", _processes),
)
