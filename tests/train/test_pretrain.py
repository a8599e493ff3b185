import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import tiny
from ownlm.runtime.errors import CorpusError
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
