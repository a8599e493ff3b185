import pytest

from ownlm.runtime.errors import OwnLMError
from ownlm.train.batching import Batching, BatchRamp


def test_the_batch_doubles_until_it_is_whole() -> None:
    batching = Batching(32, 8, BatchRamp(9, 3))
    assert [batching.draws(step)[1] for step in range(12)] == [4] * 3 + [8] * 3 + [16] * 3 + [32] * 3


@pytest.mark.parametrize("ramp", [BatchRamp(), BatchRamp(9, 3), BatchRamp(7, 2), BatchRamp(1, 3)])
def test_every_draw_comes_once(ramp: BatchRamp) -> None:
    batching, place = Batching(32, 8, ramp), 0
    for step in range(20):
        first, count = batching.draws(step)
        assert first == place
        place += count


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_processes_share_a_step_equally(size: int, rows: int) -> None:
    whole: list[int] = []
    counts = set()
    for rank in range(size):
        parts = Batching(32, rows, BatchRamp(4, 1), rank, size).own(16)
        assert all(part.stop - part.start <= rows for part in parts)
        counts.add(tuple(part.stop - part.start for part in parts))
        whole += [each for part in parts for each in range(part.start, part.stop)]
    assert whole == list(range(16)) and len(counts) == 1


@pytest.mark.parametrize(("windows", "halvings", "size"), [(6, 2, 1), (4, 3, 1), (8, 2, 4), (9, 0, 2)])
def test_a_batch_that_cannot_be_shared(windows: int, halvings: int, size: int) -> None:
    with pytest.raises(OwnLMError, match=f"Choose a multiple of {size << halvings}"):
        Batching(windows, 8, BatchRamp(4, halvings), 0, size)
