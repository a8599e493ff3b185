"""Checkpoints: everything that a run needs to go on bit for bit, in one safetensors file."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ownlm.model.decoder import Decoder
from ownlm.runtime import atomic

NAME = "checkpoint-{step:08d}.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a run has come. The data position and every seed follow from `step`."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0


def save_checkpoint(
    folder: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer], progress: Progress
) -> Path:
    """Writes a checkpoint aside and renames it; only then are older ones removed (the last two stay).

    Frozen parameters are not in it: whoever resumes brings them along, as for the first step.

    Raises:
        DiskFull: no space is left; the earlier checkpoints are as they were.
    """
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    for name, parameter in _learning(decoder):
        tensors[f"weights/{name}"] = parameter.detach()
        for optimiser in optimisers:
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"state/{name}/{key}"] = value
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    path = folder / NAME.format(step=progress.step)
    text = json.dumps(asdict(progress))
    atomic.write_bytes(path, save(tensors, {"progress": text, "checksum": _checksum(text, tensors)}))
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-2]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, decoder: Decoder, optimisers: list[torch.optim.Optimizer]) -> Progress | None:
    """Restores the newest checkpoint that can be read; a damaged one is passed over for the one before it."""
    for path in sorted(folder.glob("checkpoint-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                progress = Progress(**json.loads(metadata["progress"]))
                # Copies: what comes from the file is mapped to it, and it will be removed.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if _checksum(metadata["progress"], tensors) != metadata["checksum"]:
                continue
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue
        _restore(tensors, decoder, optimisers)
        return progress
    return None


def _learning(decoder: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
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
    for name, parameter in _learning(decoder):
        parameter.copy_(tensors[f"weights/{name}"])
        prefix = f"state/{name}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            owners[id(parameter)].state[parameter] = state
