import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ownlm.engine.request import SamplingParams
from ownlm.engine.sampling import draw
from ownlm.runtime.counter_random import uniform
from ownlm.runtime.errors import UnsupportedParameter

VOCABULARY = 12
NOTHING = torch.zeros(1, VOCABULARY)


def logits(rows: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 1.5


def draws(row: Tensor, params: SamplingParams, count: int = 20_000) -> np.ndarray:
    """How often each token is drawn from one row of logits, with seeds 0, 1, 2, ..."""
    many = row.expand(count, -1)
    empty = torch.zeros(count, VOCABULARY)
    return np.bincount(draw(many, params, list(range(count)), 0, empty, empty).ids.numpy(), minlength=VOCABULARY)


def reference(row: Tensor, params: SamplingParams) -> np.ndarray:
    """The distribution that the parameters ask for, written plainly, one token after the other."""
    values = [value / params.temperature for value in row.tolist()]
    weights = {i: math.exp(value - max(values)) for i, value in enumerate(values)}
    order = sorted(weights, key=lambda i: -weights[i])
    if params.top_k:
        order = order[: params.top_k]
    if params.min_p:
        order = [i for i in order if weights[i] >= params.min_p * weights[order[0]]]
    total, mass, kept = sum(weights[i] for i in order), 0.0, []
    for i in order:
        kept.append(i)
        mass += weights[i] / total
        if mass >= params.top_p:
            break
    result = np.zeros(VOCABULARY)
    result[kept] = [weights[i] for i in kept]
    return result / result.sum()


PARAMS = [
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.5),
    SamplingParams(temperature=1.7),
    SamplingParams(temperature=1.0, top_k=4),
    SamplingParams(temperature=1.0, top_p=0.7),
    SamplingParams(temperature=1.0, min_p=0.15),
    SamplingParams(temperature=1.3, top_k=6, top_p=0.8, min_p=0.1),
    SamplingParams(temperature=1.0, top_p=0.01),
    SamplingParams(temperature=1.0, top_k=VOCABULARY + 5, min_p=1.0),
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_distribution(params: SamplingParams, seed: int) -> None:
    row = logits(seed=seed)[0]
    counts, expected = draws(row, params), reference(row, params) * 20_000
    assert not counts[expected == 0].any()
    if (expected > 0).sum() > 1:
        assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-4
    # The test has teeth: another temperature would not pass.
    if params.top_k == 0 and params.top_p == 1 and params.min_p == 0:
        warmer = reference(row, SamplingParams(temperature=params.temperature * 1.1)) * 20_000
        assert stats.chisquare(counts, warmer).pvalue < 1e-6


def test_greedy_is_the_best_whatever_the_filters() -> None:
    rows = logits(30)
    empty = torch.zeros_like(rows)
    for params in (SamplingParams(temperature=0), SamplingParams(temperature=0, top_k=3, top_p=0.5, min_p=0.2)):
        assert torch.equal(draw(rows, params, [0] * 30, 0, empty, empty).ids, rows.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-45, 5e-324])
def test_a_temperature_near_zero_is_nearly_greedy(temperature: float) -> None:
    rows = logits(30) * 30
    empty = torch.zeros_like(rows)
    found = draw(rows, SamplingParams(temperature=temperature), list(range(30)), 0, empty, empty).ids
    assert torch.equal(found, rows.argmax(-1))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows, params = logits(40), SamplingParams(temperature=1.0, top_p=0.9, top_k=8)
    seeds, empty = list(range(100, 140)), torch.zeros(40, VOCABULARY)
    together = draw(rows, params, seeds, 3, empty, empty).ids
    for i in range(40):
        assert draw(rows[i : i + 1], params, [seeds[i]], 3, NOTHING, NOTHING).ids[0] == together[i]
    turned = draw(rows.flip(0), params, seeds[::-1], 3, empty, empty).ids
    assert torch.equal(turned.flip(0), together)


def test_seeds_and_positions_decide_the_draw() -> None:
    row, params = torch.zeros(200, VOCABULARY), SamplingParams(temperature=1.0)
    empty = torch.zeros_like(row)
    first = draw(row, params, list(range(200)), 0, empty, empty).ids
    assert torch.equal(first, draw(row, params, list(range(200)), 0, empty, empty).ids)
    # Chance agreement is 1 in 12.
    assert (first == draw(row, params, list(range(200)), 1, empty, empty).ids).float().mean() < 0.2
    assert (first == draw(row, params, list(range(200, 400)), 0, empty, empty).ids).float().mean() < 0.2
    assert len(draw(row[:2], params, [-1, 2**63], 0, empty[:2], empty[:2]).ids) == 2


def test_the_uniform_numbers_are_uniform_and_independent() -> None:
    seeds = np.arange(50_000, dtype=np.uint64)
    first, second = uniform(seeds, 0), uniform(seeds, 1)
    assert first.min() >= 0 and first.max() < 1
    for values in (first, second, (second - first) % 1):
        assert stats.kstest(values, "uniform").pvalue > 1e-4
    one_seed = np.concatenate([uniform(seeds[7:8], counter) for counter in range(5000)])
    assert stats.kstest(one_seed, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(one_seed[:-1], one_seed[1:])[0, 1]) < 0.06


def test_penalties_are_the_plain_formulas() -> None:
    row = torch.tensor([[2.0, -1.0, 0.5, 1.9, -3.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7]])
    prompts, answers = torch.zeros_like(row), torch.zeros_like(row)
    prompts[0, 0], answers[0, 1], answers[0, 3] = 1, 2, 3

    def chosen(values: Tensor, **penalties: float) -> Tensor:
        """The distribution behind 20,000 draws is told apart from its neighbours by chi-square."""
        params = SamplingParams(temperature=1.0, **penalties)
        ids = draw(
            row.expand(20_000, -1), params, range(20_000), 0, prompts.expand(20_000, -1), answers.expand(20_000, -1)
        ).ids
        counts = np.bincount(ids.numpy(), minlength=VOCABULARY)
        expected = torch.softmax(values[0].double(), -1).numpy() * 20_000
        assert stats.chisquare(counts, expected).pvalue > 1e-4
        return ids

    repeated = row.clone()
    repeated[0, 0], repeated[0, 1], repeated[0, 3] = 2.0 / 1.5, -1.0 * 1.5, 1.9 / 1.5
    chosen(repeated, repetition_penalty=1.5)
    # OpenAI's two act on the answer alone.
    answered = row.clone()
    answered[0, 1] -= 0.7 + 0.4 * 2
    answered[0, 3] -= 0.7 + 0.4 * 3
    chosen(answered, presence_penalty=0.7, frequency_penalty=0.4)


def test_logprobs_are_the_models_own() -> None:
    rows = logits(20)
    empty = torch.zeros_like(rows)
    everything = torch.log_softmax(rows, -1)
    params = SamplingParams(temperature=0.4, top_k=2, repetition_penalty=1.3, logprobs=3)
    drawn = draw(rows, params, list(range(20)), 0, empty + 1, empty)
    assert drawn.logprobs is not None and drawn.top_ids is not None and drawn.top_logprobs is not None
    torch.testing.assert_close(drawn.logprobs, everything.gather(1, drawn.ids[:, None])[:, 0])
    torch.testing.assert_close(drawn.top_logprobs, everything.sort(-1, descending=True).values[:, :3])
    torch.testing.assert_close(everything.gather(1, drawn.top_ids), drawn.top_logprobs)
    assert draw(rows, SamplingParams(), [0] * 20, 0, empty, empty).logprobs is None
    none_but_own = draw(rows, SamplingParams(logprobs=0), [0] * 20, 0, empty, empty)
    assert none_but_own.logprobs is not None and none_but_own.top_ids is not None
    assert none_but_own.top_ids.shape == (20, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0), ("temperature", -0.1), ("temperature", math.nan), ("top_p", 0.0), ("top_k", -1),
        ("min_p", 1.1), ("repetition_penalty", 0.0), ("presence_penalty", 3.0), ("frequency_penalty", -3.0),
        ("stop", ("",)), ("stop", ("a",) * 17), ("logprobs", 21),
    ],
)  # fmt: skip
def test_impossible_parameters_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UnsupportedParameter, match=name) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.name == name
