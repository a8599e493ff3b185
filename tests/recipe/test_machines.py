"""GPUs from their datasheets: what money and hours give."""

from __future__ import annotations

import pytest

from ownlm.recipe.machines import GPUS, STARTING, find_gpu, rent
from ownlm.runtime.errors import BudgetError, OwnLMError


def test_the_table() -> None:
    for name, gpu in GPUS.items():
        assert gpu.name == name
        assert 50e12 < gpu.flops < 5e15
        assert 16e9 < gpu.memory < 300e9
        assert 2e11 < gpu.bandwidth < 1e13
        assert 0.1 < gpu.dollars < 20
        assert len(gpu.source) > 10
    # The figures without sparsity: a datasheet's larger one is twice that.
    assert GPUS["h100"].flops == pytest.approx(1979e12 / 2, rel=0.001)
    assert GPUS["l40s"].flops == pytest.approx(733e12 / 2, rel=0.02)


def test_names() -> None:
    assert find_gpu("H100") is GPUS["h100"]
    assert find_gpu("RTX 4090") is GPUS["rtx4090"]
    with pytest.raises(OwnLMError, match="--gpu tpu: its datasheet is not known here. There is: a10, a100"):
        find_gpu("tpu")


def test_what_was_not_said_follows() -> None:
    gpu = GPUS["h100"]
    assert rent(gpu, 2, None, None).count == 1
    assert rent(gpu, 2, 8 * 2 * gpu.dollars, None).count == 8
    assert rent(gpu, 2, 3.9 * 2 * gpu.dollars, None).count == 3
    assert rent(gpu, 2, 21 * 2 * gpu.dollars, None).count == 16, "whole nodes"
    assert rent(gpu, None, 12, None).hours == pytest.approx(12 / gpu.dollars)
    assert rent(gpu, None, 12, 4).hours == pytest.approx(3 / gpu.dollars)
    assert rent(gpu, 3, None, 4).dollars == pytest.approx(12 * gpu.dollars)
    both = rent(gpu, 1, 100, 2)
    assert (both.count, both.hours) == (2, 1)


@pytest.mark.parametrize(
    ("hours", "dollars", "count", "words"),
    [
        (None, None, None, "--gpu needs a budget"),
        (None, None, 4, "--gpu needs a budget"),
        (0, None, None, "--hours 0: it must be a number above zero"),
        (float("nan"), None, None, "--hours nan"),
        (float("inf"), None, None, "--hours inf"),
        (2, -1, None, "--dollars -1"),
        (2, None, 0, "--count 0"),
        (10, 5, None, r"\$5 pay for 100 minutes of one h100"),
        (10, 5, 2, r"2 x h100 for 10 hours cost \$60.00 at \$3.00 an hour, more than the \$5 given"),
        (0.01, None, None, "are gone before training starts"),
    ],
)
def test_budgets_that_are_none(hours: float | None, dollars: float | None, count: int | None, words: str) -> None:
    with pytest.raises(OwnLMError, match=words) as caught:
        rent(GPUS["h100"], hours, dollars, count)
    assert caught.value.exit_code == 2


def test_too_little_money_says_how_much_is_enough() -> None:
    with pytest.raises(BudgetError, match="Give --dollars 30, or fewer --hours"):
        rent(GPUS["h100"], 10, 5, None)
    assert rent(GPUS["h100"], 10, 30, None).count == 1


def test_operations() -> None:
    one, node, rack = (rent(GPUS["a100"], 2, None, count) for count in (1, 8, 64))
    assert one.flops(4096) == pytest.approx(312e12 * 0.4 * (7200 - STARTING))
    assert node.flops(4096) == pytest.approx(8 * one.flops(4096))
    assert rack.utilisation(4096) < node.utilisation(4096)
    assert one.utilisation(256) == pytest.approx(one.utilisation(1024) / 2)
