"""Causal attention for training on CPUs: blocks of batched matmuls that stay in the cache.

torch's flash kernel for CPUs reaches a sixth of the matmul rate in bf16; batched matmuls of `(heads, 128, keys)` reach
most of it. Groups of heads and blocks of queries keep the scores inside the cache, and each block of queries only
meets the keys that it may see. The probabilities are kept for the backward pass (Dao et al. 2022, arXiv 2205.14135,
section 3, gives the formulas; memory is quadratic in `time` here, which is cheap at the contexts that CPUs train).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

QUERIES = 128
"""Queries a block."""
ROWS = 16
"""Batch rows x heads that are worked on together."""


def _tiles(rows: int, time: int) -> Iterator[tuple[slice, slice, slice, int, tuple[int, int, int]]]:
    """Rows, queries and keys of each tile, the offset of its probabilities in the flat store, and their shape."""
    offset = 0
    for row in range(0, rows, ROWS):
        last = min(row + ROWS, rows)
        for start in range(0, time, QUERIES):
            end = min(start + QUERIES, time)
            shape = (last - row, end - start, end)
            yield slice(row, last), slice(start, end), slice(0, end), offset, shape
            offset += shape[0] * shape[1] * shape[2]


def _stored(rows: int, time: int) -> int:
    return sum(shape[0] * shape[1] * shape[2] for *_, shape in _tiles(rows, time))


def _view(store: Tensor, offset: int, shape: tuple[int, int, int]) -> Tensor:
    return store[offset : offset + shape[0] * shape[1] * shape[2]].view(shape)


def _lowest(first: Tensor | None, row: slice, query: slice) -> int:
    """The first key that any query of a tile may see; `first` never falls along `time`."""
    return 0 if first is None else int(first[row, query.start].min())


def _hide(scores: Tensor, first: Tensor | None, row: slice, query: slice, low: int) -> None:
    """Puts -inf where a key (the first column is key `low`) comes before what its query may see."""
    if first is None or int(first[row, query.stop - 1].max()) <= low:
        return
    keys = torch.arange(low, low + scores.shape[2], device=scores.device)
    scores.masked_fill_(keys < first[row, query, None], float("-inf"))


@torch.library.custom_op("ownlm::tiled_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    rows, time, _ = q.shape
    out = torch.empty_like(q)
    store = torch.empty(_stored(rows, time), dtype=q.dtype, device=q.device)
    unseen = torch.full((QUERIES, QUERIES), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
    scaled = q * scale
    for row, query, key, offset, shape in _tiles(rows, time):
        low = _lowest(first, row, query)
        seen = slice(low, key.stop)
        scores = torch.bmm(scaled[row, query], k[row, seen].transpose(1, 2))
        scores[:, :, query.start - low :] += unseen[: shape[1], : shape[1]]
        _hide(scores, first, row, query, low)
        probabilities = _view(store, offset, (shape[0], shape[1], key.stop - low))
        torch.softmax(scores, -1, out=probabilities)
        out[row, query] = torch.bmm(probabilities, v[row, seen])
    return out, store


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(_stored(q.shape[0], q.shape[1]))


@torch.library.custom_op("ownlm::tiled_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, store: Tensor, first: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, time, _ = q.shape
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    # From the last block of queries on: it writes every key's gradient that it sees, and those before it add to that.
    for row, query, key, offset, shape in reversed(list(_tiles(rows, time))):
        low = _lowest(first, row, query)
        seen = slice(low, key.stop)
        probabilities = _view(store, offset, (shape[0], shape[1], key.stop - low))
        upstream = grad[row, query]
        delta = (upstream.float() * out[row, query].float()).sum(-1, keepdim=True).to(grad.dtype)
        dscores = torch.bmm(upstream, v[row, seen].transpose(1, 2))
        dscores.sub_(delta).mul_(probabilities)
        torch.bmm(dscores, k[row, seen], out=dq[row, query])
        if key.stop == time:
            torch.bmm(probabilities.transpose(1, 2), upstream, out=dv[row, seen])
            torch.bmm(dscores.transpose(1, 2), q[row, query], out=dk[row, seen])
            dv[row, :low], dk[row, :low] = 0, 0
        else:
            dv[row, seen].baddbmm_(probabilities.transpose(1, 2), upstream)
            dk[row, seen].baddbmm_(dscores.transpose(1, 2), q[row, query])
    return dq.mul_(scale), dk.mul_(scale), dv


@_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, store: Tensor, first: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, ctx.first, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx, grad: Tensor, _: Tensor | None):  # type: ignore[no-untyped-def]
    found = _backward(grad.contiguous(), *ctx.saved_tensors, ctx.first, ctx.scale)
    return (*found, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, first: Tensor | None = None) -> Tensor:
    """Causal softmax attention `(batch, heads, time, head_dim)`; fewer key/value heads are shared by groups.

    `scale` multiplies the scores (None: `head_dim ** -0.5`). `first` `(batch, time)` or `(1, time)`: the first key that
    each query may see, never falling along `time` (where its document begins, or its window); what no query of a tile
    sees is not computed.
    """
    batch, heads, time, head_dim = q.shape
    if k.shape[1] != heads:
        k = k.repeat_interleave(heads // k.shape[1], dim=1)
        v = v.repeat_interleave(heads // v.shape[1], dim=1)
    flat = [x.reshape(batch * heads, time, head_dim).contiguous() for x in (q, k, v)]
    if first is not None:
        first = first.expand(batch, time).repeat_interleave(heads, dim=0)
    out = _forward(*flat, first, head_dim**-0.5 if scale is None else scale)[0]
    return out.view(batch, heads, time, head_dim)  # type: ignore[no-any-return]
