"""The yardstick that a neural model has to beat: an interpolated n-gram model of the same tokens.

Modified Kneser-Ney smoothing, interpolated (Chen and Goodman, 1998, "An empirical study of smoothing techniques for
language modeling", TR-10-98, section 4.1.6), the strongest classical smoothing. For a context h of n-1 tokens and a
token w,

    p_n(w | h) = max(c(h w) - D(c(h w)), 0) / c(h .)  +  gamma(h) p_{n-1}(w | h without its first token)
    gamma(h)   = (D1 N1(h .) + D2 N2(h .) + D3+ N3+(h .)) / c(h .)

where c counts occurrences at the highest order and distinct left neighbours below it, Ni(h .) is the number of tokens
that follow h exactly i times, and with Y = n1 / (n1 + 2 n2) from the counts of counts of each order
D1 = 1 - 2Y n2/n1, D2 = 2 - 3Y n3/n2, D3+ = 3 - 4Y n4/n3. Below the unigrams lies the uniform distribution, so that
every token has a probability above zero and all of them sum to one.

N-grams are held as a trie of sorted integers: key = (number of its first n-1 tokens) V + last token, exact and without
hashing. Training sorts each order once; a look-up is a binary search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Order:
    """The n-grams of one length n, sorted by key.

    `keys` int64 (grams,); `own` float32 (grams,): the discounted share of each; `gamma` float32 (contexts,): what its
    context leaves to the shorter one, 1 for contexts without any count. Contexts are the grams of length n-1.
    """

    keys: Keys
    own: Floats
    gamma: Floats

    def find(self, contexts: Keys, tokens: Keys, vocabulary: int) -> Keys:
        """The number of each n-gram, -1 where it was never seen or its context number is -1. All shapes (queries,)."""
        wanted = contexts * vocabulary + tokens
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[places] == wanted), places, -1)


@dataclass(frozen=True)
class NgramModel:
    """An interpolated token n-gram model. `start` stands before the first token of every document."""

    orders: tuple[Order, ...]
    vocabulary: int
    start: int

    @classmethod
    def train(cls, tokens: npt.NDArray[Any], vocabulary: int, order: int = 5, start: int = 0) -> NgramModel:
        """Counts a stream of token ids of shape (tokens,), the documents divided by the token `start`.

        Raises:
            ValueError: fewer tokens than `order`, or ids that the vocabulary does not have.
        """
        stream = tokens.astype(np.int64)
        if len(stream) < max(2, order):
            raise ValueError(f"{len(stream)} tokens are too few for an n-gram model of order {order}")
        if int(stream.max()) >= vocabulary or not 0 <= start < vocabulary:
            raise ValueError(f"a token id lies outside the vocabulary of {vocabulary}")
        every = np.arange(vocabulary)
        shorter = _Grams(every, stream, every, np.bincount(stream, minlength=vocabulary))
        orders, contexts = [], 1
        for n in range(1, order):
            longer = _number(shorter.at[:-1] * vocabulary + stream[n:])
            neighbours = np.bincount(shorter.at[longer.first + 1], minlength=len(shorter.keys))
            orders.append(_smooth(shorter.keys, neighbours, contexts, vocabulary))
            contexts, shorter = len(shorter.keys), longer
        orders.append(_smooth(shorter.keys, shorter.counts, contexts, vocabulary))
        return cls(tuple(orders), vocabulary, start)

    def log_probs(self, ids: npt.NDArray[Any] | Sequence[int]) -> npt.NDArray[np.float64]:
        """Natural logarithm of the probability of every token given those before it in the document.

        Args:
            ids: one document's tokens, shape (tokens,), without the token that divides documents.

        Returns:
            shape (tokens,); the first is conditioned on `start` alone.
        """
        stream = np.concatenate(([self.start], np.asarray(ids, dtype=np.int64)))
        words = stream[1:]
        chance = self.orders[0].own[words] + self.orders[0].gamma[0] / np.float64(self.vocabulary)
        # ending[t]: the number of the (n-1)-gram whose last token is stream[t], -1 where it is unknown or would begin
        # before the document. Unigrams are numbered by their token.
        ending = stream
        for order in self.orders[1:]:
            contexts = ending[:-1]
            found = order.find(contexts, words, self.vocabulary)
            own = np.where(found >= 0, order.own[found], 0.0)
            chance = np.where(contexts >= 0, own + order.gamma[contexts] * chance, chance)
            ending = np.concatenate(([-1], found))
        logarithms: npt.NDArray[np.float64] = np.log(chance)
        return logarithms

    def distribution(self, context: Sequence[int]) -> npt.NDArray[np.float64]:
        """Probability of every token after `context` (the last few ids of a document, the oldest first)."""
        history = [*context][-(len(self.orders) - 1) :] if len(self.orders) > 1 else []
        chance: npt.NDArray[np.float64] = self.orders[0].own + self.orders[0].gamma[0] / np.float64(self.vocabulary)
        for n in range(2, len(history) + 2):
            number = self._number(history[len(history) - n + 1 :])
            if number < 0:
                break
            order = self.orders[n - 1]
            first, last = np.searchsorted(order.keys, [number * self.vocabulary, (number + 1) * self.vocabulary])
            chance = order.gamma[number] * chance
            chance[order.keys[first:last] - number * self.vocabulary] += order.own[first:last]
        return chance

    def best_next(self, context: Sequence[int]) -> tuple[int, float]:
        """The likeliest token after `context`, and its probability."""
        chance = self.distribution(context)
        best = int(chance.argmax())
        return best, float(chance[best])

    def _number(self, gram: Sequence[int]) -> int:
        """The number of an n-gram, -1 when it was never seen."""
        number = int(gram[0])
        for n, token in enumerate(gram[1:], start=2):
            order = self.orders[n - 1]
            key = number * self.vocabulary + int(token)
            place = int(np.searchsorted(order.keys, key))
            if place == len(order.keys) or order.keys[place] != key:
                return -1
            number = place
        return number


@dataclass(frozen=True)
class _Grams:
    """All n-grams of one length, numbered in the order of their sorted keys.

    `at` (positions,): the number of the n-gram that begins at each position; `first` (grams,): a position of each;
    `counts` (grams,): how often each occurs.
    """

    keys: Keys
    at: Keys
    first: Keys
    counts: Keys


def _number(keys: Keys) -> _Grams:
    """`np.unique` with everything it can return, from one sort."""
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.empty(len(keys), dtype=np.bool_)
    new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    at = np.empty(len(keys), dtype=np.int64)
    at[order] = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    return _Grams(ordered[starts], at, order[starts], np.diff(starts, append=len(keys)))


def _smooth(keys: Keys, counts: Keys, contexts: int, vocabulary: int) -> Order:
    """Turns counts into discounted shares and back-off weights; `contexts` is how many shorter n-grams there are."""
    context = keys // vocabulary
    totals = np.bincount(context, weights=counts, minlength=contexts)
    taken = np.minimum(_discounts(counts)[np.minimum(counts, 3)], counts)
    removed = np.bincount(context, weights=taken, minlength=contexts)
    share = np.where(totals > 0, totals, 1.0)
    own = (counts - taken) / share[context]
    gamma = np.where(totals > 0, removed / share, 1.0)
    return Order(keys, own.astype(np.float32), gamma.astype(np.float32))


def _discounts(counts: Keys) -> npt.NDArray[np.float64]:
    """(0, D1, D2, D3+) from the counts of counts; 0.5, 1, 1.5 where a corpus is too small to have them."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    clipped: npt.NDArray[np.float64] = np.clip(found, 0.0, [0.0, 1.0, 2.0, 3.0])
    return clipped
