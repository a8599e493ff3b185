"""Training in several processes: torchrun starts them, fully_shard and parallelize_module divide the model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ownlm.model.decoder import Block, BlockFunction, Decoder
from ownlm.runtime.errors import OwnLMError
from ownlm.train.exchange import divided, local
from ownlm.train.rendezvous import join
from ownlm.train.world import World

T = TypeVar("T")

_LETTING_GO = 0.2
_HEAD_NORMS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
_BY_OUTPUTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_FEED_FORWARDS = ("mlp", "mlp.experts.*")


@dataclass(frozen=True)
class Group(World):
    """A world of several processes; `mesh` has the dimensions "data" and "tensor"."""

    mesh: Any = None

    def sum(self, values: Sequence[float]) -> list[float]:
        """The ranks that divide the matrices among them have one share of the batch, and count once."""
        return [value / self.tensor_parallel for value in self._added(values)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self._added([float(flag)])[0] > 0

    def broadcast(self, value: T) -> T:
        """The main process's value, pickled."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def collect(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks, pickled."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gradients(self, model: nn.Module) -> None:
        """Sums the gradients of what `shard` left whole in every process: norms and biases, in one message.

        Norms over single heads have, under tensor parallelism, seen this process's heads only.
        """
        whole: list[Tensor] = []
        heads: list[Tensor] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.ndim < 2:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                partial = self.tensor_parallel > 1 and name.endswith(_HEAD_NORMS)
                (heads if partial else whole).append(local(parameter.grad))
        _add_up(whole, self.mesh["data"].get_group())
        _add_up(heads, dist.group.WORLD)

    def clip(self, parameters: Iterable[Tensor], limit: float) -> float:
        """Scales all gradients so that their norm over all processes is at most `limit`; the norm before."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        held: dict[int, list[Tensor]] = {}
        for gradient in gradients:
            held.setdefault(self._holders(gradient), []).append(local(gradient))
        # What several processes hold alike is counted by all of them.
        squares = [float(torch.nn.utils.get_total_norm(each)) ** 2 / holders for holders, each in held.items()]
        norm = float(self._added([sum(squares)])[0] ** 0.5)
        share = limit / (norm + 1e-6)
        if not share >= 1:  # also where it is not a number
            for gradient in gradients:
                local(gradient).mul_(share)
        return norm

    def close(self) -> None:
        """Leaves the group, once torch's threads have let go of what was sent last: Python's end in the midst of that
        aborts the process.
        """
        time.sleep(_LETTING_GO)
        dist.destroy_process_group()

    def _holders(self, tensor: Tensor) -> int:
        """How many processes hold the same numbers of a tensor."""
        if not divided(tensor):
            return self.size
        parts = 1
        for index, placement in enumerate(tensor.placements):
            parts *= 1 if placement.is_replicate() else tensor.device_mesh.size(index)
        return self.size // parts

    def _added(self, values: Sequence[float]) -> list[float]:
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers)
        found: list[float] = numbers.tolist()
        return found


def launched(tensor_parallel: int = 1, device: str = "cpu") -> World:
    """The world that torchrun started this process in (gloo on processors, NCCL beside it on CUDA); else one process.

    `device` is "cpu" or "cuda"; on CUDA every process takes the GPU of its local rank.

    Raises:
        OwnLMError: matrices cannot be divided among so many processes, or there are too few GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if tensor_parallel < 1 or size % tensor_parallel:
        raise OwnLMError(
            f"--tensor-parallel {tensor_parallel} divides each matrix among {tensor_parallel} processes, but there "
            f"{'is' if size == 1 else 'are'} {size}. Start a multiple of it with torchrun, or give another number."
        )
    kind = torch.device(device).type
    here = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        if here >= torch.cuda.device_count():
            raise OwnLMError(
                f"This process is number {here + 1} of its machine, which has {torch.cuda.device_count()} GPU(s). "
                "Give torchrun a smaller --nproc-per-node."
            )
        torch.cuda.set_device(here)
        device = f"cuda:{here}"
    elif kind != "cpu" and size > 1:
        raise OwnLMError(f"Several processes train on cpu or cuda, not on {device}. Start one process there.")
    if size == 1:
        return World(device=device)
    if not dist.is_initialized():
        join("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    shape = (size // tensor_parallel, tensor_parallel)
    mesh = dist.device_mesh.init_device_mesh(kind, shape, mesh_dim_names=("data", "tensor"))
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Group(dist.get_rank(), size, tensor_parallel, device, neighbours, mesh)


def shard(decoder: Decoder, world: World) -> Decoder:
    """Divides a decoder, whose weights are the same in every process, among them; changes it in place.

    Matrices are divided by `fully_shard`, a block at a time, and with `world.tensor_parallel` by `parallelize_module`
    first; norms and biases stay whole. To be called after `kernels.use`, before the optimisers are made. Where blocks
    compute in bfloat16 their matrices travel in it, which is what they are rounded to anyway; gradients are summed in
    fp32.

    Raises:
        OwnLMError: the model's heads or feed-forward cannot be divided by `world.tensor_parallel`.
    """
    if not isinstance(world, Group):
        return decoder.to(world.device)
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    if world.tensor_parallel > 1:
        _divide_matrices(decoder, world)
    if decoder.run_block is not Block.__call__:
        decoder.run_block = _within_hooks(decoder.run_block)
    vectors = {parameter for parameter in decoder.parameters() if parameter.ndim < 2}
    for vector in vectors:
        vector.data = vector.data.to(world.device)
    narrow = None if decoder.compute_dtype == torch.float32 else decoder.compute_dtype
    policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = world.mesh["data"]
    for block in decoder.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=vectors)
    fully_shard(decoder, mesh=mesh, ignored_params=vectors)
    register_fsdp_forward_method(decoder, "hidden")
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the weight of the whole batch: its gradients are added, not averaged.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
            if decoder.config.experts is not None:
                _reduce_unused(module)
    return decoder


def reshard(decoder: Decoder) -> None:
    """Frees what a look at the model (an evaluation) left gathered, so that its parameters are the divided ones."""
    for module in decoder.modules():
        if callable(free := getattr(module, "reshard", None)):
            free()


@torch.no_grad()
def gathered(decoder: Decoder, world: World) -> Decoder | None:
    """The whole model, on the processor, in the main process; None in the others, which must call this too."""
    if world.size == 1:
        return decoder.to("cpu")
    reshard(decoder)
    weights = {}
    for name, parameter in decoder.named_parameters():
        whole = parameter.full_tensor() if divided(parameter) else parameter
        if world.main:
            weights[name] = whole.detach().cpu()
    if not world.main:
        return None
    with torch.device("meta"):
        found = Decoder(decoder.config, decoder.compute_dtype)
    found.load_state_dict(weights, assign=True)
    return found


def _divide_matrices(decoder: Decoder, world: Group) -> None:
    """Megatron's division (Shoeybi et al. 2019, arXiv 1909.08053): heads and feed-forward neurons go to ranks.

    Embeddings and head are left to `fully_shard`.
    """
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    config, parts = decoder.config, world.tensor_parallel
    ffn = [config.ffn] if config.experts is None else [config.ffn, config.experts.ffn]
    for what, count in (("heads", config.heads), ("kv_heads", config.kv_heads), *(("ffn", size) for size in ffn)):
        if count % parts:
            raise OwnLMError(
                f"--tensor-parallel {parts}: the model's {what}={count} cannot be divided by {parts}. "
                "Give a number that divides it, or 1."
            )
    if config.qk_norm == "full":
        raise OwnLMError(
            f"--tensor-parallel {parts}: this family normalises queries over all heads together, which cannot be "
            "divided. Use 1; the model is divided by fully_shard alone."
        )
    plan: dict[str, Any] = {name: ColwiseParallel() for name in _BY_OUTPUTS} | {"self_attn.o_proj": RowwiseParallel()}
    for block in decoder.layers:
        names = {name for name, _ in block.named_modules()}
        inner = {
            f"{where}.{name}": style()
            for where in _FEED_FORWARDS
            for name, style in (
                ("gate_proj", ColwiseParallel),
                ("up_proj", ColwiseParallel),
                ("down_proj", RowwiseParallel),
            )
            if f"{where}.{name}".replace("*", "0") in names
        }
        parallelize_module(block, world.mesh["tensor"], plan | inner)


def _within_hooks(compiled: BlockFunction) -> BlockFunction:
    """A compiled `Block.forward` that `fully_shard` can gather the weights for: by the hooks of the block's call."""

    def run(block: nn.Module, *inputs: Any) -> Tensor:
        block.forward = MethodType(compiled, block)
        try:
            return block(*inputs)  # type: ignore[no-any-return]
        finally:
            del block.forward

    return run


def _reduce_unused(module: Any) -> None:
    """An expert that none of a process's tokens chose takes part in the sum with zeros."""
    try:
        module.set_reduce_scatter_unused_params(True, recurse=False)
    except AttributeError:
        raise OwnLMError(
            f"A mixture of experts trains in several processes from torch 2.13 on; this is {torch.__version__}. "
            "Install a newer torch, or start one process."
        ) from None


def _add_up(tensors: list[Tensor], group: Any) -> None:
    """Sums tensors over a group, in place, as one message."""
    if not tensors or dist.get_world_size(group) == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat, group=group)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
