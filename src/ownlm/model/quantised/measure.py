"""Which way to multiply by a quantised weight is faster, by the number of rows: measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ownlm.model.layers import Linear
from ownlm.model.quantised.layers import QuantisedLinear
from ownlm.model.quantised.quantise import quantise_module
from ownlm.model.quantised.scheme import Scheme

ROWS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Crossover:
    """`rows`: the highest number of rows up to which the packed kernel is never slower (0: it is not used).

    `figures` are (rows, microseconds packed, microseconds dequantised); both are the same where no packed kernel works.
    """

    scheme: Scheme
    rows: int
    figures: tuple[tuple[int, float, float], ...]


def measure_crossover(
    scheme: Scheme,
    dtype: torch.dtype = torch.bfloat16,
    inputs: int = 1024,
    outputs: int = 4096,
    rows: Sequence[int] = ROWS,
    seconds: float = 1.0,
) -> Crossover:
    """Times both ways on a matrix of that shape, in about `seconds` in all; the same numbers of `rows`, ascending."""
    layers = [_layer(scheme, inputs, outputs, seed) for seed in range(8)]  # more than the cache holds, as in a model
    share = seconds / len(rows) / 2
    figures = []
    for count in rows:
        x = torch.randn(count, inputs).to(dtype)
        packed, dequantised = (_microseconds(_rounds(layers, x, limit), share) for limit in (count, 0))
        figures.append((count, packed, dequantised))
    crossover = 0
    for count, packed, dequantised in figures:
        if packed > dequantised:
            break
        crossover = count
    return Crossover(scheme, crossover, tuple(figures))


def _layer(scheme: Scheme, inputs: int, outputs: int, seed: int) -> QuantisedLinear:
    linear = Linear(inputs, outputs)
    torch.nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(seed))
    found = quantise_module("", linear, scheme)
    assert isinstance(found, QuantisedLinear)
    return found


def _rounds(layers: Sequence[QuantisedLinear], x: torch.Tensor, packed_rows: int) -> Callable[[], None]:
    @torch.inference_mode()
    def once() -> None:
        for layer in layers:
            layer.packed_rows = packed_rows
            layer(x)

    return once


def _microseconds(call: Callable[[], None], seconds: float) -> float:
    """The lower-quartile time of a call."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 4 or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return round(sorted(times)[len(times) // 4] * 1e6, 1)
