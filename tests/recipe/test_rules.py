"""Hyperparameters by rule: their course with size and batch, and that each says why."""

from __future__ import annotations

import pytest

from ownlm.recipe import rules
from ownlm.recipe.shapes import LADDER
from ownlm.recipe.texts import Text
from ownlm.train.optimisers import Rates


def test_every_size_is_larger_than_the_one_before() -> None:
    configs = [size.config(4096, 512) for size in LADDER]
    sizes = [config.matmul_parameters for config in configs]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)
    assert sizes[0] < 2e6 and sizes[-1] > 30e9


def test_small_models_take_small_vocabularies() -> None:
    chosen = [rules.vocabulary(size, 512, Text()).value for size in LADDER]
    assert chosen == sorted(chosen)
    assert chosen[0] <= 2048
    assert chosen[5] <= 16384
    assert chosen[-1] == rules.VOCABULARIES[-1]


def test_a_vocabulary_that_saves_no_tokens_is_not_taken() -> None:
    flat = Text({1024: 3.0, 2048: 3.0, 4096: 3.0, 8192: 3.0})
    steep = Text({1024: 2.0, 2048: 3.0, 4096: 4.0, 8192: 5.0})
    size = LADDER[2]
    assert rules.vocabulary(size, 512, flat).value == 1024
    assert rules.vocabulary(size, 512, steep).value > rules.vocabulary(size, 512, Text()).value


def test_the_vocabulary_reads_nearly_the_most_text() -> None:
    text = Text()
    for size in LADDER:
        read = {
            count: text.bytes_of(count) / size.config(count, 512).training_flops_per_token(512)
            for count in rules.VOCABULARIES
        }
        assert read[rules.vocabulary(size, 512, text).value] >= (1 - rules.NEARLY) * max(read.values())


def test_the_batch_grows_with_compute() -> None:
    batches = [rules.batch(flops, 512).value for flops in (0, 5e13, 1e16, 1e18, 1e21)]
    assert batches[:2] == [rules.SMALLEST_BATCH] * 2
    assert batches == sorted(batches)
    assert all(batch & (batch - 1) == 0 for batch in batches)
    assert batches[4] / batches[1] == pytest.approx((1e21 / 5e13) ** 0.327, rel=0.5)
    assert rules.batch(0, 8192).value == 8192


def test_the_rates_are_the_tuned_ones_where_they_were_tuned() -> None:
    assert rules.rates(192, 4096).value == Rates()
    assert "found best" in rules.rates(128, 4096).why


def test_the_rates_follow_batch_and_width() -> None:
    plain = Rates()
    larger = rules.rates(192, 8192).value
    assert larger.matrices == pytest.approx(plain.matrices * 2**0.5)
    wider = rules.rates(768, 4096).value
    assert wider.matrices == plain.matrices
    assert wider.embeddings == pytest.approx(plain.embeddings / 2)
    assert rules.rates(768, 1 << 22).value.matrices == pytest.approx(2 * plain.matrices)


def test_a_short_run_warms_up_for_some_steps() -> None:
    assert rules.warmup(10_000).value == 0.03
    assert rules.warmup(100).value == pytest.approx(0.1)
    assert rules.warmup(20).value == 0.2


def test_every_rule_says_why() -> None:
    for choice in (
        rules.vocabulary(LADDER[0], 512, Text()), rules.context(1e6), rules.context(1e10), rules.batch(1e20, 2048),
        rules.rates(1024, 1 << 20), rules.warmup(500), rules.decay(),
    ):  # fmt: skip
        assert choice.shown
        assert len(choice.why) > 20
