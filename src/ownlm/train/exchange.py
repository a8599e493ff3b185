"""Matrices of which every process holds a block, brought together: each process gets some of them whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:  # half a second that one process need not wait for
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement

Block = tuple[slice, ...]
"""What a process holds of a tensor: of a matrix some rows and columns."""


def divided(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor, of which this process may hold a part only."""
    return hasattr(tensor, "device_mesh")


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory; a plain tensor is held whole."""
    return tensor.to_local() if divided(tensor) else tensor


def placement(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor is divided: equal for tensors of which each process holds like parts; empty for plain ones."""
    return (tensor.device_mesh, tensor.placements) if divided(tensor) else ()


def rows_like(matrix: Tensor, values: int, dtype: torch.dtype) -> Tensor:
    """Zeros `(rows, values)` of which each process holds the rows that it holds of `matrix`."""
    zeros = torch.zeros(len(local(matrix)), values, dtype=dtype, device=local(matrix).device)
    if not divided(matrix):
        return zeros
    from torch.distributed.tensor import DTensor, Replicate

    placements = [Replicate() if _dimension(place) == 1 else place for place in matrix.placements]
    shape = torch.Size((matrix.shape[0], values))
    return DTensor.from_local(zeros, matrix.device_mesh, placements, run_check=False, shape=shape, stride=(values, 1))


def room_for(shape: Sequence[int], dtype: torch.dtype, parameter: Tensor) -> Tensor:
    """Zeros for a piece of the optimiser's state of `parameter`, divided among the processes as that is.

    A piece has the parameter's shape, or one value or a few a row, or else is whole in every process.
    """
    if tuple(shape) == tuple(parameter.shape):
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    if len(shape) == 2 and parameter.ndim == 2 and shape[0] == parameter.shape[0]:
        return rows_like(parameter, shape[1], dtype)
    return torch.zeros(tuple(shape), dtype=dtype, device=local(parameter).device)


@torch.no_grad()
def held(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that this process has whole, divided as `like` is; itself where that is not divided."""
    if not divided(like):
        return whole
    from torch.distributed.tensor import DTensor

    mesh = like.device_mesh
    part = whole[block_of(tuple(like.shape), mesh, like.placements, dist.get_rank())]
    part = part.to(local(like).device).contiguous()
    return DTensor.from_local(
        part, mesh, like.placements, run_check=False, shape=like.shape, stride=whole.contiguous().stride()
    )


def alike(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """The parameters in groups of which each is divided in one way: torch's fused optimisers take no mixture."""
    groups: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(placement(parameter), []).append(parameter)
    return list(groups.values())


@dataclass(frozen=True)
class Alone:
    """Of matrices that this process holds whole nothing is exchanged."""

    def gather(self, blocks: Sequence[Tensor]) -> Tensor:
        """`(matrices, rows, columns)`."""
        return torch.stack(list(blocks))

    def scatter(self, wholes: Tensor) -> list[Tensor]:
        """The matrices one by one."""
        return list(wholes.unbind())


@dataclass(frozen=True)
class Exchange:
    """`owners[i]` is the rank in `group` that gets matrix `i` whole; `blocks[rank]` is what a rank holds of each."""

    shape: tuple[int, int]
    blocks: tuple[Block, ...]
    owners: tuple[int, ...]
    rank: int
    group: Any

    def gather(self, blocks: Sequence[Tensor]) -> Tensor:
        """This process's blocks of all matrices in, the matrices that it owns out: `(owned, rows, columns)`."""
        sent = [blocks[i].flatten() for i in self._by_owner]
        sizes = [blocks[0].numel() * self.owners.count(rank) for rank in range(len(self.blocks))]
        received = [self._owned * _count(block) for block in self.blocks]
        parts = self._swap(torch.cat(sent), sizes, received)
        wholes = blocks[0].new_empty(self._owned, *self.shape)
        for (rows, columns), part in zip(self.blocks, parts, strict=True):
            wholes[:, rows, columns] = part.view(self._owned, rows.stop - rows.start, columns.stop - columns.start)
        return wholes

    def scatter(self, wholes: Tensor) -> list[Tensor]:
        """The way back: owned matrices `(owned, rows, columns)` in, this process's block of every matrix out."""
        sent = [wholes[:, rows, columns].flatten() for rows, columns in self.blocks]
        rows, columns = self.blocks[self.rank]
        shape = rows.stop - rows.start, columns.stop - columns.start
        received = [prod(shape) * self.owners.count(rank) for rank in range(len(self.blocks))]
        parts = self._swap(torch.cat(sent), [len(part) for part in sent], received)
        found = torch.cat(parts).view(len(self.owners), *shape)
        places = {matrix: place for place, matrix in enumerate(self._by_owner)}
        return [found[places[matrix]] for matrix in range(len(self.owners))]

    @property
    def _owned(self) -> int:
        return self.owners.count(self.rank)

    @property
    def _by_owner(self) -> list[int]:
        return sorted(range(len(self.owners)), key=self.owners.__getitem__)

    def _swap(self, flat: Tensor, sizes: list[int], received: list[int]) -> list[Tensor]:
        """Sends `sizes[rank]` numbers to every rank, and gives what each one sent."""
        result = flat.new_empty(sum(received))
        dist.all_to_all_single(result, flat, received, sizes, group=self.group)
        return [result[begin:end] for begin, end in pairwise((0, *accumulate(received)))]


def exchange_of(matrix: Tensor, count: int, turn: int = 0) -> Alone | Exchange:
    """The exchange of `count` matrices that are divided as `matrix` is; ownership goes round from rank `turn` on."""
    if not divided(matrix):
        return Alone()
    mesh = matrix.device_mesh
    ranks = mesh.mesh.flatten().tolist()
    group = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD
    if mesh.ndim > 1 and ranks != list(range(dist.get_world_size())):
        raise ValueError(f"a matrix divided in {mesh.ndim} ways must be divided among all processes, not {ranks}")
    rows, columns = matrix.shape
    blocks = tuple(block_of((rows, columns), mesh, matrix.placements, rank) for rank in ranks)
    owners = tuple((turn + index) % len(ranks) for index in range(count))
    return Exchange((rows, columns), blocks, owners, ranks.index(dist.get_rank()), group)


def block_of(shape: tuple[int, ...], mesh: Any, placements: Sequence[Placement], rank: int) -> Block:
    """The block of a tensor that `rank` of a device mesh holds.

    Tensor parallelism, the mesh's last dimension, divides first, and `fully_shard` what that leaves; each like
    `torch.chunk`.
    """
    begins, ends = [0] * len(shape), list(shape)
    place_in_mesh = (mesh.mesh == rank).nonzero()[0].tolist()
    for index in reversed(range(mesh.ndim)):
        dimension = _dimension(placements[index])
        if dimension is None:
            continue
        length = ends[dimension] - begins[dimension]
        part = -(-length // mesh.size(index))
        at = min(place_in_mesh[index] * part, length)
        ends[dimension] = begins[dimension] + min(at + part, length)
        begins[dimension] += at
    return tuple(slice(begin, end) for begin, end in zip(begins, ends, strict=True))


def _dimension(placement: Placement) -> int | None:
    """The dimension that is divided; None where each process holds all of it."""
    if placement.is_replicate():
        return None
    # A Shard, or the strided kind that fully_shard makes of what tensor parallelism divided, whose class varies.
    dimension = getattr(placement, "dim", None)
    if dimension is None:
        raise ValueError(f"a matrix placed as {placement} is in no process as it is")
    return int(dimension)


def _count(block: Block) -> int:
    rows, columns = block
    return int((rows.stop - rows.start) * (columns.stop - columns.start))
