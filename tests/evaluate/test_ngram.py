"""The fast model against a slow, plain one that follows the formula word for word."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from ownlm.evaluate.ngram import NgramModel, _discounts

VOCABULARY, START = 24, 0


def corpus(tokens: int = 3_000) -> np.ndarray:
    """A stream with structure: each token depends on the two before it, documents end at random."""
    rng = np.random.default_rng(5)
    stream = [START, 3]
    while len(stream) < tokens:
        if rng.random() < 0.02:
            stream.append(START)
        else:
            stream.append(1 + (stream[-1] * 7 + stream[-2] * 3 + int(rng.integers(0, 3))) % (VOCABULARY - 1))
    return np.array(stream, dtype=np.uint16)


class Plain:
    """Interpolated modified Kneser-Ney with dictionaries."""

    def __init__(self, tokens: np.ndarray, order: int) -> None:
        stream = [int(token) for token in tokens]
        self.order = order
        self.counts: list[dict[tuple[int, ...], int]] = []
        for n in range(1, order + 1):
            if n == order:
                counted = Counter(tuple(stream[i : i + n]) for i in range(len(stream) - n + 1))
            else:
                longer = {tuple(stream[i : i + n + 1]) for i in range(len(stream) - n)}
                counted = Counter(gram[1:] for gram in longer)
            self.counts.append(dict(counted))
        self.discounts = []
        for counts in self.counts:
            times = Counter(counts.values())
            found = [0.0, 0.5, 1.0, 1.5]
            if times[1] and times[2] and times[3]:
                y = times[1] / (times[1] + 2 * times[2])
                found = [0.0, 1 - 2 * y * times[2] / times[1], 2 - 3 * y * times[3] / times[2]]
                found.append(3 - 4 * y * times[4] / times[3])
            self.discounts.append([min(max(d, 0.0), top) for top, d in enumerate(found)])
        self.followers: list[dict[tuple[int, ...], list[int]]] = []
        for counts in self.counts:
            by_context = defaultdict(list)
            for gram, count in counts.items():
                by_context[gram[:-1]].append(count)
            self.followers.append(by_context)

    def probability(self, context: tuple[int, ...], token: int) -> float:
        if len(context) > self.order - 1:
            context = context[-(self.order - 1) :] if self.order > 1 else ()
        n = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / VOCABULARY
        counts = self.followers[n - 1].get(context)
        if not counts:
            return lower
        discounts, total = self.discounts[n - 1], sum(counts)
        count = self.counts[n - 1].get((*context, token), 0)
        own = max(count - discounts[min(count, 3)], 0) / total
        return own + sum(min(discounts[min(c, 3)], c) for c in counts) / total * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_plain_model(order: int) -> None:
    tokens = corpus()
    fast, plain = NgramModel.train(tokens, VOCABULARY, order, START), Plain(tokens, order)
    document = [int(token) for token in corpus(5_000)[3_500:3_800] if token != START]
    found = fast.log_probs(np.array(document))
    for at, token in enumerate(document):
        expected = plain.probability((START, *document[:at]), token)
        assert found[at] == pytest.approx(np.log(expected), rel=1e-4)


def test_probabilities_sum_to_one_after_any_context() -> None:
    tokens = corpus()
    model = NgramModel.train(tokens, VOCABULARY, 4, START)
    rng = np.random.default_rng(0)
    contexts = [[], [START], [23, 23, 23], *(tokens[i : i + 5].tolist() for i in rng.integers(0, 2_990, 50))]
    for context in contexts:
        chances = model.distribution(context)
        assert chances.sum() == pytest.approx(1.0, abs=1e-5)
        assert chances.min() > 0


def test_batch_and_single_look_ups_agree() -> None:
    tokens = corpus()
    model = NgramModel.train(tokens, VOCABULARY, 5, START)
    document = corpus(4_000)[3_500:3_600]
    found = model.log_probs(document)
    for at in (0, 1, 2, 3, 4, 5, 50, 99):
        history = [START, *document[:at]]
        assert found[at] == pytest.approx(np.log(model.distribution(history)[document[at]]))


def test_best_next_is_the_most_frequent_follower() -> None:
    model = NgramModel.train(np.array([0, 1, 2, 3] * 50 + [0, 1, 2, 4] * 3), 8, 3, 0)
    token, chance = model.best_next([1, 2])
    assert token == 3 and 0.8 < chance < 1


def test_longer_contexts_help_on_structured_text() -> None:
    tokens, document = corpus(20_000), corpus(24_000)[21_000:]
    alone, given_two = (NgramModel.train(tokens, VOCABULARY, n, START).log_probs(document).mean() for n in (1, 3))
    assert given_two > alone + 1.0


def test_small_corpora_fall_back_to_fixed_discounts() -> None:
    assert _discounts(np.array([5, 5, 5])).tolist() == [0.0, 0.5, 1.0, 1.5]
    model = NgramModel.train(np.array([0, 1, 2]), 4, 2, 0)
    assert model.distribution([1]).sum() == pytest.approx(1.0)
    assert np.isfinite(model.log_probs([3, 3, 3])).all()
    assert len(model.log_probs([])) == 0


@pytest.mark.parametrize(("tokens", "start"), [([0, 1, 9], 0), ([0], 0), ([0, 1, 2], 8)])
def test_nonsense_is_refused(tokens: list[int], start: int) -> None:
    with pytest.raises(ValueError):
        NgramModel.train(np.array(tokens), 8, 2, start)
