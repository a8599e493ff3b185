"""Packing: every fitting example once, whole, and nothing else but padding."""

from __future__ import annotations

from collections import Counter

import pytest

from ownlm.align.packing import Encoded, Packed, pack

PAD = 0


def example(number: int, size: int) -> Encoded:
    """Tokens that tell their example; the second half is learnt."""
    return Encoded([number * 100 + place for place in range(1, size + 1)], [2 * p >= size for p in range(size)])


def unpacked(packed: Packed) -> Counter[tuple[tuple[int, bool], ...]]:
    """The examples that lie in the rows, as (token, learnt) pairs."""
    found: Counter[tuple[tuple[int, bool], ...]] = Counter()
    for ids, learnt in zip(packed.ids.tolist(), packed.learnt.tolist(), strict=True):
        current: list[tuple[int, bool]] = []
        for token, flag in [*zip(ids, learnt, strict=True), (PAD, False)]:
            if current and (token == PAD or token % 100 == 1):
                found[tuple(current)] += 1
                current = []
            if token != PAD:
                current.append((token, flag))
            else:
                assert not flag, "padding is never learnt"
    return found


@pytest.mark.parametrize("length", [20, 33, 64])
def test_every_fitting_example_lies_in_the_rows_once_and_whole(length: int) -> None:
    examples = [example(number, 3 + number * 7 % 18) for number in range(1, 40)]
    packed = pack(examples, length, PAD, seed=1)
    assert unpacked(packed) == Counter(tuple(zip(e.ids, e.learnt, strict=True)) for e in examples)
    assert packed.examples == 39
    assert packed.ids.shape == packed.learnt.shape == (len(packed.ids), length)


def test_rows_are_well_filled() -> None:
    examples = [example(number, 3 + number * 7 % 18) for number in range(1, 99)]
    packed = pack(examples, 128, PAD, seed=1)
    assert (packed.ids != PAD).mean() > 0.85


def test_what_is_too_long_is_counted_and_never_cut() -> None:
    packed = pack([example(1, 8), example(2, 9), example(3, 30)], 8, PAD, seed=0)
    assert (packed.examples, packed.too_long) == (1, 2)
    assert packed.ids.tolist() == [example(1, 8).ids]


def test_the_seed_decides_the_order() -> None:
    examples = [example(number, 5) for number in range(1, 30)]
    assert (pack(examples, 20, PAD, 1).ids == pack(examples, 20, PAD, 1).ids).all()
    assert (pack(examples, 20, PAD, 1).ids != pack(examples, 20, PAD, 2).ids).any()


@pytest.mark.parametrize("examples", [[], [example(1, 40)]])
def test_nothing_to_pack(examples: list[Encoded]) -> None:
    packed = pack(examples, 16, PAD, seed=0)
    assert packed.ids.shape == (0, 16)
    assert (packed.examples, packed.too_long) == (0, len(examples))
