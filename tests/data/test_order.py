import numpy as np
import pytest

from ownlm.data.order import permute, sample_indices


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 255, 1000, 1025, 70_001])
def test_every_index_comes_once_an_epoch(size: int) -> None:
    epochs, indices = sample_indices(0, 3 * size, size, "print", 7)
    for epoch in range(3):
        chosen = indices[epochs == epoch]
        assert sorted(chosen.tolist()) == list(range(size))


def test_epochs_seeds_and_corpora_have_orders_of_their_own() -> None:
    _, two_epochs = sample_indices(0, 2000, 1000, "print", 7)
    orders = [two_epochs[:1000], two_epochs[1000:], np.arange(1000)]
    orders += [sample_indices(0, 1000, 1000, *key)[1] for key in (("print", 8), ("other", 7))]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.02


def test_any_draw_can_be_had_without_the_ones_before() -> None:
    size = 101
    epochs, indices = sample_indices(0, 5 * size, size, "print", 7)
    for first, count in ((0, 1), (37, 10), (95, 20), (4 * size - 1, 2), (500, 5)):
        found = sample_indices(first, count, size, "print", 7)
        assert np.array_equal(found[0], epochs[first : first + count])
        assert np.array_equal(found[1], indices[first : first + count])
    # Far away costs nothing more.
    far = sample_indices(10**15, 3, size, "print", 7)
    assert far[0][0] == 10**15 // size and far[1].max() < size


def test_the_order_looks_random() -> None:
    size = 4096
    _, indices = sample_indices(0, size, size, "print", 7)
    values = indices.astype(float)
    # Neighbours are unrelated, and so are place and value: standard error is 1/64 each.
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.08
    assert abs(np.corrcoef(values, np.arange(size))[0, 1]) < 0.08
    # The first quarter holds about a quarter of each quarter: chi-square with 3 degrees, 99.99 % is 21.1.
    counts = np.bincount(indices[: size // 4].astype(np.int64) * 4 // size, minlength=4)
    assert ((counts - 256) ** 2 / (256 * 0.75)).sum() < 21.1


def test_the_order_of_a_key_never_changes() -> None:
    # A change here breaks resuming of every run that was begun before.
    assert permute(np.arange(8, dtype=np.uint64), 8, "print", 7, 0).tolist() == [7, 5, 6, 1, 2, 0, 3, 4]
