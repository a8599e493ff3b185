"""Packing: short examples put together into rows of one length, so that no compute is spent on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ownlm.data.order import permute


@dataclass(frozen=True)
class Encoded:
    """One example as tokens, and for each whether it is to be learnt; both have the same length."""

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True)
class Packed:
    """`ids` and `learnt` `(rows, length)`; padding is `pad` and never learnt. `examples` counts those that fitted."""

    ids: NDArray[np.int64]
    learnt: NDArray[np.bool_]
    examples: int
    too_long: int


def pack(examples: Sequence[Encoded], length: int, pad: int, seed: int) -> Packed:
    """Fills rows with whole examples in a seeded order, each into the first open row with room (first fit).

    Examples longer than `length` are left out and counted, never cut.
    """
    fitting = [example for example in examples if len(example.ids) <= length]
    numbers = np.arange(len(fitting), dtype=np.uint64)
    order = permute(numbers, len(fitting), "pack", seed) if fitting else numbers
    rows: list[list[Encoded]] = []
    room: list[int] = []
    first_open = 0
    for index in order:
        example = fitting[int(index)]
        size = len(example.ids)
        place = next((row for row in range(first_open, len(rows)) if room[row] >= size), None)
        if place is None:
            rows.append([])
            room.append(length)
            place = len(rows) - 1
        rows[place].append(example)
        room[place] -= size
        while first_open < len(rows) and room[first_open] < 16:
            first_open += 1
    ids = np.full((len(rows), length), pad, dtype=np.int64)
    learnt = np.zeros((len(rows), length), dtype=bool)
    for row, members in enumerate(rows):
        tokens = [token for member in members for token in member.ids]
        ids[row, : len(tokens)] = tokens
        learnt[row, : len(tokens)] = [flag for member in members for flag in member.learnt]
    return Packed(ids, learnt, len(fitting), len(examples) - len(fitting))
