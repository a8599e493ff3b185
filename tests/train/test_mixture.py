"""Windows from two streams: an exact share, epochs of their own, and a pure function of the step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ownlm.data.shards import TokenStream
from ownlm.runtime.errors import CorpusError, OwnLMError
from ownlm.train.batching import BatchRamp
from ownlm.train.mixture import MixtureObjective, join, joined
from ownlm.train.pretrain import PretrainObjective

NEW = np.arange(1, 142, dtype=np.uint16)
OLD = np.arange(1001, 1072, dtype=np.uint16)


def mixture(replayed: float = 0.25, **changes: object) -> MixtureObjective:
    made = MixtureObjective(
        joined(NEW, OLD), "print", context=7, rows=4, micro_batches=2, seed=3, border=len(NEW), replayed=replayed
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def windows(objective: PretrainObjective, steps: range) -> torch.Tensor:
    return torch.cat([batch.tensors["ids"] for step in steps for batch in objective.batches(step)])


def test_an_array_of_two() -> None:
    whole, both = joined(NEW, OLD), np.concatenate((NEW, OLD))
    assert len(whole) == len(both)
    for start in range(0, len(both), 13):
        for stop in (start, start + 1, start + 40, len(both) + 5):
            assert np.array_equal(whole[start:stop], both[start:stop])
    table = joined(NEW[:6].reshape(3, 2), OLD[:4].reshape(2, 2))
    assert table[1:5].tolist() == [[3, 4], [5, 6], [1001, 1002], [1003, 1004]]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_share_is_exact_in_every_thousand_draws(share: float) -> None:
    objective = mixture(share)
    replays = np.concatenate([objective.replays(step) for step in range(500)])
    assert len(replays) == 4000
    for block in replays.reshape(4, 1000):
        assert block.sum() == round(1000 * share)
    # In no order: neighbours tell nothing of each other.
    pairs = (replays[1:] & replays[:-1]).mean()
    assert pairs == pytest.approx(share**2, abs=0.02)


def test_windows_come_from_the_stream_that_was_drawn() -> None:
    objective = mixture()
    for step in range(40):
        ids = windows(objective, range(step, step + 1))
        assert bool((ids.diff(dim=1) == 1).all())
        assert torch.equal(ids[:, 0] > 1000, torch.from_numpy(objective.replays(step)))


def test_each_stream_has_epochs_of_its_own() -> None:
    """As with one stream: every window comes once before any comes again, in another order each time."""
    seen = windows(mixture(0.4), range(400))
    for first, ids in ((1, NEW), (1001, OLD)):
        own = seen[(seen[:, 0] > 1000) == (first > 1000)]
        count = (len(ids) - 1) // 7
        numbers = ((own[:, 0] - first) // 7)[: len(own) // count * count].reshape(-1, count)
        assert len(numbers) > 50
        assert torch.equal(numbers.sort(1).values, torch.arange(count).expand_as(numbers))
        assert not torch.equal(numbers[0], numbers[1])


def test_a_step_depends_on_nothing_before_it() -> None:
    objective = mixture()
    ahead = windows(objective, range(30, 31))
    windows(objective, range(30))
    assert torch.equal(windows(mixture(), range(30, 31)), ahead)
    assert not torch.equal(windows(mixture(seed=4), range(30, 31)), ahead)


def test_processes_share_the_same_draws() -> None:
    whole = windows(mixture(), range(3, 4))
    parts = [windows(mixture(share=(rank, 2)), range(3, 4)) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_with_a_batch_ramp_no_draw_is_left_out() -> None:
    ramped = mixture(ramp=BatchRamp(steps=10, halvings=1))
    plain = mixture()
    counts = [len(ramped.replays(step)) for step in range(12)]
    assert counts == [4] * 10 + [8] * 2
    early = np.concatenate([ramped.replays(step) for step in range(10)])
    assert np.array_equal(early, np.concatenate([plain.replays(step) for step in range(5)]))


def test_documents_are_found_in_both_streams() -> None:
    streams = [
        TokenStream(ids, np.array([0, 30, len(ids)]), ["a", "b"], ["prose"] * 2, np.array([5, 6]), [f"{n}0", f"{n}1"])
        for n, ids in enumerate((NEW, OLD))
    ]
    whole = join(*streams)
    assert whole.starts.tolist() == [0, 30, 141, 171, 212] and whole.sha256 == ["00", "01", "10", "11"]
    objective = dataclasses.replace(mixture(), ids=whole.ids, starts=whole.starts, sha256=whole.sha256)
    for step in range(20):
        ids = windows(objective, range(step, step + 1))
        expected = set()
        for value in ids.flatten().tolist():
            n, place = (1, value - 1001) if value > 1000 else (0, value - 1)
            expected.add(f"{n}{int(place >= 30)}")
        assert set(objective.documents(step)) == expected
    masked = dataclasses.replace(objective, mask_documents=True)
    assert all("first" in batch.tensors for batch in masked.batches(0))


def test_a_stream_that_is_too_short() -> None:
    with pytest.raises(CorpusError, match="The replayed corpus has 7 tokens"):
        mixture(ids=joined(NEW, OLD[:7]))
    with pytest.raises(CorpusError, match="The new corpus has 5 tokens"):
        mixture(border=5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(OwnLMError, match="lies between 0 and 1"):
        mixture(share)
