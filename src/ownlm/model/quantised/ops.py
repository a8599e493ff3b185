"""The products with quantised weights as torch operations: differentiable with respect to the input, and compilable.

`codes` and `scales` are those of `int8` (int8 codes) or of `int4` (bytes).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ownlm.model.quantised import int4, int8


def multiply(x: Tensor, codes: Tensor, scales: Tensor, outputs: int, packed_rows: int) -> Tensor:
    """`x W^T`: `(..., inputs)` to `(..., outputs)`, in `x`'s precision; `W` is frozen."""
    if torch.compiler.is_compiling() or (x.requires_grad and torch.is_grad_enabled()):
        found: Tensor = _multiply(x, codes, scales, outputs, packed_rows)
        return found
    return _product(x, codes, scales, outputs, packed_rows)


def _product(x: Tensor, codes: Tensor, scales: Tensor, outputs: int, packed_rows: int) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    if codes.dtype is torch.int8:
        found = int8.multiply(flat, codes, scales, packed_rows)
    else:
        found = int4.multiply(flat, codes, scales, outputs, packed_rows)
    return found.view(*x.shape[:-1], outputs)


@torch.library.custom_op("ownlm::quantised_linear", mutates_args=())
def _multiply(x: Tensor, codes: Tensor, scales: Tensor, outputs: int, packed_rows: int) -> Tensor:
    return _product(x, codes, scales, outputs, packed_rows)


@_multiply.register_fake
def _(x: Tensor, codes: Tensor, scales: Tensor, outputs: int, packed_rows: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


@torch.library.custom_op("ownlm::quantised_linear_backward", mutates_args=())
def _multiply_back(grad: Tensor, codes: Tensor, scales: Tensor, inputs: int) -> Tensor:
    flat = grad.reshape(-1, grad.shape[-1])
    back = int8.multiply_back if codes.dtype is torch.int8 else int4.multiply_back
    return back(flat, codes, scales).view(*grad.shape[:-1], inputs)


@_multiply_back.register_fake
def _(grad: Tensor, codes: Tensor, scales: Tensor, inputs: int) -> Tensor:
    return grad.new_empty(*grad.shape[:-1], inputs)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, codes, scales, _, _ = inputs
    ctx.inputs = x.shape[-1]
    ctx.save_for_backward(codes, scales)


def _differentiate(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    return _multiply_back(grad, *ctx.saved_tensors, ctx.inputs), None, None, None, None


_multiply.register_autograd(_differentiate, setup_context=_save)
