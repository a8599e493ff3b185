"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic
from ownlm.runtime.errors import DiskFull
from ownlm.train.exchange import divided, held, local, room_for
from ownlm.train.world import World

NAME = "checkpoint-{step:08d}.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come. The data position and every seed follow from `step`."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0


def save_checkpoint(
    folder: Path,
    decoder: Decoder,
    optimisers: list[torch.optim.Optimizer],
    progress: Progress,
    world: World = World(),
) -> Path:
    """Writes a checkpoint aside and renames it; only then are older ones removed (the last two stay).

    Frozen parameters are not in it: whoever resumes brings them along, as for the first step. Several processes write
    a folder together (see `sharded_checkpoint`).

    Raises:
        DiskFull: no space is left; the last checkpoint before it is kept.
    """
    if world.size > 1:
        from ownlm.train.sharded_checkpoint import save_sharded

        path = save_sharded(folder, decoder, optimisers, progress, world)
    else:
        path = _save_whole(folder, decoder, optimisers, progress)
    if world.main:
        remove_old(folder, 2)
    return path


def _save_whole(folder: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer], progress: Progress) -> Path:
    tensors = {key: value.cpu().contiguous() for key, value in state_tensors(decoder, optimisers).items()}
    path = folder / NAME.format(step=progress.step)
    text = json.dumps(asdict(progress))
    content = save(tensors, {"progress": text, "checksum": _checksum(text, tensors)})
    try:
        atomic.write_bytes(path, content)
    except DiskFull:
        if not remove_old(folder, 1):
            raise
        atomic.write_bytes(path, content)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: files of one process, folders of several."""
    return sorted(folder.glob("checkpoint-*[0-9].safetensors")) + sorted(folder.glob("checkpoint-*[0-9].dcp"))


def remove_old(folder: Path, keep: int) -> bool:
    """Removes all but the newest `keep` checkpoints; whether there were any."""
    old = sorted(checkpoints(folder), key=lambda path: path.stem)[:-keep]
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return bool(old)


def require_room(folder: Path, decoder: Decoder) -> None:
    """Two checkpoints must fit on the disk before the first step is taken.

    Raises:
        DiskFull: there is less room.
    """
    # Weights, and at most two moments of each.
    one = sum(3 * parameter.numel() * 4 for _, parameter in learning(decoder))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 2 * one:
        raise DiskFull(
            f"The disk that holds {folder} has {free / 1e9:.2f} GB left; the run needs room for two checkpoints, "
            f"{2 * one / 1e9:.2f} GB. Free some space and run the same command again."
        )


def load_checkpoint(
    folder: Path,
    decoder: Decoder,
    optimisers: list[torch.optim.Optimizer],
    world: World = World(),
    warn: Callable[[str], None] | None = None,
) -> Progress | None:
    """Restores the newest checkpoint that can be read; `warn` is told of each that is damaged and passed over."""
    for path in sorted(checkpoints(folder), key=lambda path: path.stem, reverse=True):
        if path.is_dir():
            from ownlm.train.sharded_checkpoint import load_sharded

            progress = load_sharded(path, decoder, optimisers, world)
        else:
            progress = _load_whole(path, decoder, optimisers)
        if progress is not None:
            return progress
        if warn is not None:
            warn(f"{path} is damaged: the run goes on from the checkpoint before it, or begins again.")
    return None


def _load_whole(path: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer]) -> Progress | None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            progress = Progress(**json.loads(metadata["progress"]))
            # Copies: what comes from the file is mapped to it, and it will be removed.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if _checksum(metadata["progress"], tensors) != metadata["checksum"]:
            return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    _restore(tensors, decoder, optimisers)
    return progress


def state_tensors(decoder: Decoder, optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Everything that a checkpoint holds, by name: weights that learn, the optimisers' state, the random state."""
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    for name, parameter in learning(decoder):
        tensors[f"weights/{name}"] = parameter.detach()
        for optimiser in optimisers:
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"state/{name}/{key}"] = value
    return tensors


def learning(decoder: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen, by name."""
    return ((name, parameter) for name, parameter in decoder.named_parameters() if parameter.requires_grad)


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    """CRC-32 over everything, since safetensors notices a file that is too short but no changed byte."""
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"


@torch.no_grad()
def _restore(tensors: dict[str, Tensor], decoder: Decoder, optimisers: list[torch.optim.Optimizer]) -> None:
    torch.set_rng_state(tensors["random"])
    owners = {id(p): optimiser for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in learning(decoder):
        parameter.copy_(held(tensors[f"weights/{name}"], parameter))
        prefix = f"state/{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            owners[id(parameter)].state[parameter] = {key: _placed(value, parameter) for key, value in state.items()}


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """A piece of the optimiser's state where, and divided as, its parameter is."""
    room = room_for(value.shape, value.dtype, parameter)
    return held(value, room) if divided(room) else value.to(local(parameter).device)
