import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

import tiny
from ownlm.model.kernels import Kernels, use
from ownlm.runtime.errors import CorpusError
from ownlm.train.batching import BatchRamp
from ownlm.train.pretrain import PretrainObjective

IDS = np.arange(1, 201, dtype=np.uint16)
OBJECTIVE = PretrainObjective(IDS, "print", context=7, rows=4, micro_batches=2, seed=3, bytes_per_token=4.0)


def windows(objective: PretrainObjective, steps: int) -> torch.Tensor:
    return torch.cat([batch.tensors["ids"] for step in range(steps) for batch in objective.batches(step)])


def test_an_epoch_trains_every_token_once() -> None:
    assert OBJECTIVE.windows == 28
    seen = windows(OBJECTIVE, 7)
    for epoch in (seen[:28], seen[28:]):
        assert sorted(epoch[:, 1:].flatten().tolist()) == IDS[1 : 28 * 7 + 1].tolist()
    assert not torch.equal(seen[:28], seen[28:])


def test_windows_are_stretches_of_the_stream() -> None:
    assert bool((windows(OBJECTIVE, 3).diff(dim=1) == 1).all())


def test_micro_batches_cut_the_same_rows() -> None:
    whole = dataclasses.replace(OBJECTIVE, rows=8, micro_batches=1)
    assert torch.equal(windows(OBJECTIVE, 3), windows(whole, 3))
    (batch,) = whole.batches(5)
    assert (batch.weight, batch.tokens) == (56.0, 56)
    assert torch.equal(batch.tensors["ids"], whole.batches(5)[0].tensors["ids"])


def test_the_loss_is_the_sum_over_the_next_tokens() -> None:
    decoder = tiny.decoder()
    objective = PretrainObjective(tiny.random_ids(500).numpy(), "print", context=20, rows=3, bytes_per_token=4.0)
    (batch,) = objective.batches(0)
    ids = batch.tensors["ids"]
    expected = functional.cross_entropy(decoder(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(objective.loss(decoder, batch), expected, rtol=1e-4, atol=1e-3)
    assert objective.describe(math.log(2) * 4) == {"bits_per_byte": pytest.approx(1.0)}


def test_a_corpus_smaller_than_a_window() -> None:
    with pytest.raises(CorpusError, match="The corpus has 7 tokens, too few for one window of 7"):
        dataclasses.replace(OBJECTIVE, ids=IDS[:7])
    assert dataclasses.replace(OBJECTIVE, ids=IDS[:8]).windows == 1


STARTS = np.array([0, 3, 20, 21, 64, 65, 130, 200])
NAMES = [f"{index:064x}" for index in range(7)]


def test_with_masked_documents_every_token_is_predicted_from_its_own_document() -> None:
    decoder = tiny.decoder()
    ids = tiny.random_ids(200).numpy()
    objective = PretrainObjective(ids, "print", context=25, rows=4, starts=STARTS, mask_documents=True)
    (batch,) = objective.batches(0)
    begins = [next(at for at in range(176) if (ids[at : at + 26] == row.numpy()).all()) for row in batch.tensors["ids"]]
    for tiled in (False, True):
        use(decoder, Kernels(attention="tiled" if tiled else "sdpa"))
        expected = 0.0
        for begin in begins:
            # The token that ends a document is what the next one is read after.
            cuts = [begin, *(int(each) - 1 for each in STARTS if begin < each - 1 < begin + 25), begin + 25]
            for low, high in pairwise(cuts):
                piece = torch.from_numpy(ids[low : high + 1])[None]
                logits = decoder.logits(
                    decoder.hidden(piece[:, :-1], positions=torch.arange(low - begin, high - begin))
                )
                expected += functional.cross_entropy(logits[0], piece[0, 1:], reduction="sum").item()
        assert float(objective.loss(decoder, batch)) == pytest.approx(expected, rel=1e-5)


def test_a_short_context_at_first() -> None:
    ids = tiny.random_ids(200).numpy()
    objective = PretrainObjective(ids, "print", context=20, rows=2, short_context=(3, 5))
    assert objective.batches(2)[0].tensors["first"][1].tolist() == [0] * 5 + [5] * 5 + [10] * 5 + [15] * 5
    assert "first" not in objective.batches(3)[0].tensors
    both = dataclasses.replace(objective, starts=STARTS, mask_documents=True)
    plain = dataclasses.replace(both, short_context=(0, 0))
    expected = torch.maximum(plain.batches(0)[0].tensors["first"], objective.batches(0)[0].tensors["first"])
    assert torch.equal(both.batches(0)[0].tensors["first"], expected)


def test_the_documents_of_a_step() -> None:
    objective = dataclasses.replace(OBJECTIVE, starts=STARTS, sha256=NAMES)
    for step in range(9):
        rows = torch.cat([batch.tensors["ids"] for batch in objective.batches(step)])
        touched = {NAMES[int(np.searchsorted(STARTS, int(place), "right")) - 1] for place in (rows - 1).flatten()}
        assert set(objective.documents(step)) == touched
        shared = dataclasses.replace(objective, share=(1, 2))
        assert shared.documents(step) == objective.documents(step)
    assert OBJECTIVE.documents(0) == []


def test_processes_see_together_what_one_sees() -> None:
    ramped = dataclasses.replace(OBJECTIVE, ramp=BatchRamp(4, 2))
    parts = [dataclasses.replace(ramped, share=(rank, 2)) for rank in range(2)]
    for step in range(6):
        whole = torch.cat([batch.tensors["ids"] for batch in ramped.batches(step)])
        shared = torch.cat([batch.tensors["ids"] for part in parts for batch in part.batches(step)])
        assert torch.equal(shared, whole)
        assert len(whole) == (2, 2, 4, 4, 8, 8)[step]
