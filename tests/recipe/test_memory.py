"""The memory forecast against what autograd really keeps, and what optimisers really hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ownlm.model.config import DecoderConfig
from ownlm.model.decoder import Decoder, initialise
from ownlm.model.kernels import Kernels, Precision, use
from ownlm.recipe.memory import Memory, training_memory
from ownlm.train.optimisers import Rates, build_optimisers

SHAPES = (DecoderConfig(512, 3, 64, 4, 2, 16, 192, 128), DecoderConfig(512, 4, 96, 3, 1, 32, 256, 256))
ROWS = 4


def kept(config: DecoderConfig, kernels: Kernels) -> int:
    """Bytes of the distinct storages that the backward pass of the blocks will read, weights left out."""
    decoder = use(Decoder(config), kernels)
    initialise(decoder, 0)
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decoder.hidden(torch.zeros(ROWS, config.context, dtype=torch.long))
    return sum(sizes.values())


@pytest.mark.parametrize("attention", ["sdpa", "tiled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", SHAPES)
def test_activations(config: DecoderConfig, precision: Precision, attention: Any) -> None:
    kernels = Kernels(precision, attention)
    found = training_memory(config, kernels, ROWS)
    plain = training_memory(config.with_(layers=1), kernels, ROWS)
    blocks = (found.activations - plain.activations) / (config.layers - 1) * config.layers
    head = config.vocabulary * config.width
    copies = 2 * (config.matmul_parameters - head) if precision == "bfloat16" else 0
    assert blocks + copies == pytest.approx(kept(config, kernels), rel=0.12)


@pytest.mark.parametrize("config", SHAPES)
def test_states(config: DecoderConfig) -> None:
    decoder = use(Decoder(config), Kernels())
    initialise(decoder, 0)
    optimisers = build_optimisers(decoder, Rates())
    decoder.hidden(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    for optimiser in optimisers:
        optimiser.step()
    states = [
        value.nbytes
        for optimiser in optimisers
        for state in optimiser.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.numel() > 1
    ]
    found = training_memory(config, Kernels(), 1)
    assert found.optimiser == pytest.approx(sum(states), rel=0.01)
    weights = sum(parameter.nbytes for parameter in decoder.parameters())
    assert found.weights == found.gradients == weights


def test_recomputation_keeps_less_and_more_rows_take_more() -> None:
    config = DecoderConfig(4096, 12, 256, 2, 1, 128, 768, 512)
    plain, recomputed = (training_memory(config, Kernels("bfloat16", recompute=each), 8) for each in (False, True))
    assert recomputed.activations < 0.35 * plain.activations
    assert (recomputed.weights, recomputed.optimiser) == (plain.weights, plain.optimiser)
    assert training_memory(config, Kernels("bfloat16"), 16).activations > 1.8 * plain.activations


def test_devices_share_the_states_and_not_the_activations() -> None:
    one, eight = (training_memory(SHAPES[0], Kernels("bfloat16"), 2, shards) for shards in (1, 8))
    assert eight.weights == one.weights // 8
    assert eight.optimiser == one.optimiser // 8
    assert eight.activations == one.activations


def test_room_is_left_for_others() -> None:
    memory = Memory(40, 20, 20, 5)
    assert memory.total == 85
    assert memory.fits(100)
    assert not memory.fits(99)
