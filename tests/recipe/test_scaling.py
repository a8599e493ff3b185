"""The law's shape, what repeats are worth, and how the small law goes on as the published one."""

from __future__ import annotations

import itertools
import math

import pytest

from ownlm.recipe.scaling import (
    MASSIVETEXT_BYTES_PER_TOKEN,
    PUBLISHED,
    PYTHON_SOURCES,
    REACH,
    REPEATS,
    Forecaster,
    ScalingLaw,
    Span,
    built_in,
    useful_bytes,
)

LAW = ScalingLaw(
    floor=0.5, a=0.4, alpha=0.3, b=1.3, beta=0.3, spread=0.05, seen_parameters=Span(1e6, 10e6),
    seen_bytes=Span(2e6, 50e6), source="a test",
)  # fmt: skip


def test_repeats_are_worth_less_and_less() -> None:
    assert useful_bytes(3e6, 10e6) == 3e6
    assert useful_bytes(10e6, 10e6) == 10e6
    epochs = [useful_bytes(n * 10e6, 10e6) for n in range(1, 40)]
    gains = [second - first for first, second in itertools.pairwise(epochs)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(10e6, rel=0.04)
    assert useful_bytes(1e15, 10e6) == pytest.approx(10e6 * (1 + REPEATS))


def test_the_published_law_is_that_of_the_paper_in_other_units() -> None:
    parameters, tokens = 1e9, 20e9
    nats = 1.8172 + 482.01 / parameters**0.3478 + 2085.43 / tokens**0.3658
    bits = nats / math.log(2) / MASSIVETEXT_BYTES_PER_TOKEN
    assert PUBLISHED.at(parameters, tokens * MASSIVETEXT_BYTES_PER_TOKEN) == pytest.approx(bits)


def test_a_text_that_costs_more_costs_more_everywhere() -> None:
    drawn = ScalingLaw(**{**vars(LAW), "draws": ((0.5, 0.4, 0.3, 1.3, 0.3),)})
    scaled = drawn.scaled(1.25)
    assert scaled.at(3e6, 7e6) == pytest.approx(1.25 * LAW.at(3e6, 7e6))
    assert ScalingLaw(*scaled.draws[0], spread=0).at(3e6, 7e6) == pytest.approx(1.25 * LAW.at(3e6, 7e6))


def test_how_far_outside_a_question_lies() -> None:
    assert LAW.outside(5e6, 10e6) == 1
    assert LAW.outside(40e6, 10e6) == 4
    assert LAW.outside(5e6, 1e6) == 2
    assert LAW.outside(40e6, 500e6) == 10


def test_the_forecaster_is_the_law_as_far_as_it_is_believed() -> None:
    told = Forecaster(LAW, PUBLISHED)
    for parameters, text in ((1e6, 2e6), (10e6, 50e6), (REACH * 10e6, REACH * 50e6), (1e6 / REACH, 2e6 / REACH)):
        assert told.bits_per_byte(parameters, text, text) == pytest.approx(LAW.at(parameters, text))
        assert told.believes(parameters, text, text)
    assert not told.believes(5 * 10e6, 10e6, 10e6)


def test_beyond_that_it_falls_as_the_published_law_does() -> None:
    told = Forecaster(LAW, PUBLISHED)
    first, second = (told.bits_per_byte(size, 100 * size, 100 * size) for size in (1e9, 10e9))
    expected = PUBLISHED.at(10e9, 1000e9) / PUBLISHED.at(1e9, 100e9)
    assert second / first == pytest.approx(expected)
    assert Forecaster(LAW).bits_per_byte(1e9, 1e11, 1e11) == LAW.at(1e9, 1e11)


def test_there_is_no_step_where_the_laws_meet() -> None:
    told = built_in()
    edge = PYTHON_SOURCES.seen_bytes.high * REACH
    before, after = (told.bits_per_byte(3e6, share * edge, share * edge) for share in (0.999, 1.001))
    assert after < before
    assert after == pytest.approx(before, rel=1e-3)


def test_the_interval_widens_beyond_what_was_seen() -> None:
    told = Forecaster(LAW, PUBLISHED)
    inside, outside = told.estimate(5e6, 10e6, 10e6), told.estimate(5e6, 500e6, 500e6)
    assert (inside.low, inside.high) == pytest.approx((inside.bits_per_byte * 0.95, inside.bits_per_byte * 1.05))
    assert outside.outside == pytest.approx(10)
    assert (outside.high / outside.bits_per_byte - 1) == pytest.approx(0.10)
    absurd = told.estimate(1e30, 1e40, 1e40)
    assert absurd.low > 0


def test_laws_that_disagree_widen_the_interval() -> None:
    draws = tuple((0.5, 0.4, 0.3, 1.3 + 0.01 * step, 0.3) for step in range(-20, 21))
    drawn = ScalingLaw(**{**vars(LAW), "draws": draws})
    plain, wide = (Forecaster(law).estimate(5e6, 10e6, 10e6) for law in (LAW, drawn))
    assert wide.bits_per_byte == plain.bits_per_byte
    assert wide.high - wide.low > 1.5 * (plain.high - plain.low)


@pytest.mark.parametrize(("read", "outcome"), [(2.92e6, 1.675), (9.69e6, 1.480), (23.35e6, 1.415)])
def test_prose_is_forecast_by_a_law_of_its_own(read: float, outcome: float) -> None:
    told = built_in(prose=True).estimate(2.359e6, read, 11.35e6)
    assert told.bits_per_byte == pytest.approx(outcome, rel=0.01) and told.outside < 1.01
    assert built_in().bits_per_byte(2.359e6, 23.35e6, 11.35e6) < 1.05
