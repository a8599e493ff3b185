"""How held-out loss falls with size and text: the laws that the planner chooses and forecasts by."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache

REPEATS = 15.39
"""R*, after so many repetitions a text has given all but 1/e of what it will: Muennighoff et al. 2023, appendix A."""
REACH = 4.0
"""A law is believed up to so many times the largest, and down to that share of the smallest, that it was fitted to."""


def useful_bytes(read: float, distinct: float) -> float:
    """What `read` bytes are worth of which `distinct` are different, in bytes that are read once.

    `U + U R* (1 - exp(-R / R*))` with R repetitions of U (Muennighoff et al. 2023, arXiv 2305.16264, equation 5).
    """
    repetitions = max(0.0, read / distinct - 1.0)
    return min(read, distinct) + distinct * REPEATS * (1.0 - math.exp(-repetitions / REPEATS))


@dataclass(frozen=True)
class Span:
    """What a law has seen, from the smallest to the largest."""

    low: float = 0.0
    high: float = math.inf

    def nearest(self, value: float) -> float:
        """`value`, or the end of the believed stretch that is next to it."""
        return min(max(value, self.low / REACH), self.high * REACH)

    def outside(self, value: float) -> float:
        """How many times `value` lies beyond what was seen; 1 inside."""
        return max(1.0, value / self.high, self.low / value)


@dataclass(frozen=True)
class ScalingLaw:
    """`bits per byte = floor + a (parameters / 1e6)^-alpha + b (useful bytes / 1e6)^-beta`.

    The form of Hoffmann et al. 2022 (arXiv 2203.15556, equation 2), in bits per byte and megabytes so that it holds
    across vocabularies. `parameters` are those that multiply: the blocks and the head. `spread` is the relative
    half-width of the 90 % interval of a forecast inside what was `seen_parameters` and `seen_bytes`; `draws` are the
    (floor, a, alpha, b, beta) of other laws that the same points might have given.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    spread: float
    seen_parameters: Span = Span()
    seen_bytes: Span = Span()
    source: str = ""
    draws: tuple[tuple[float, float, float, float, float], ...] = ()

    def at(self, parameters: float, useful: float) -> float:
        """Bits per byte of a model of this size after so many useful bytes."""
        size, text = math.pow(parameters / 1e6, -self.alpha), math.pow(useful / 1e6, -self.beta)
        return self.floor + self.a * size + self.b * text

    def bits_per_byte(self, parameters: float, read: float, distinct: float) -> float:
        """The same after `read` bytes of which `distinct` are different."""
        return self.at(parameters, useful_bytes(read, distinct))

    def scaled(self, factor: float) -> ScalingLaw:
        """The law of a text that costs `factor` times as much."""
        draws = tuple((factor * floor, factor * a, alpha, factor * b, beta) for floor, a, alpha, b, beta in self.draws)
        return dataclasses.replace(self, floor=factor * self.floor, a=factor * self.a, b=factor * self.b, draws=draws)

    def outside(self, parameters: float, useful: float) -> float:
        """How far beyond the points that it was fitted to a question lies, as a factor; 1 inside."""
        return max(self.seen_parameters.outside(parameters), self.seen_bytes.outside(useful))


@dataclass(frozen=True)
class Estimate:
    """Bits per byte with a 90 % interval; `outside`: how far beyond the law's points it lies, as a factor."""

    bits_per_byte: float
    low: float
    high: float
    outside: float


@dataclass(frozen=True)
class Forecaster:
    """A law near what it was fitted to, and `beyond` it the published one, scaled to meet it where it ends."""

    law: ScalingLaw
    beyond: ScalingLaw | None = None

    def bits_per_byte(self, parameters: float, read: float, distinct: float) -> float:
        """The forecast after `read` bytes of which `distinct` are different."""
        return self._at(parameters, useful_bytes(read, distinct))

    def estimate(self, parameters: float, read: float, distinct: float) -> Estimate:
        """The forecast with its interval.

        Half of its width is the law's own spread together with the spread of its draws there, and grows by its own
        size with every factor of ten beyond the points.
        """
        useful = useful_bytes(read, distinct)
        value, outside = self._at(parameters, useful), self.law.outside(parameters, useful)
        half = math.hypot(self.law.spread * (1 + math.log10(outside)), self._drawn(parameters, useful))
        half = min(half, 0.9)
        return Estimate(value, value * (1 - half), value * (1 + half), outside)

    def believes(self, parameters: float, read: float, distinct: float) -> bool:
        """Whether the law itself reaches so far."""
        return self.law.outside(parameters, useful_bytes(read, distinct)) <= REACH

    def _at(self, parameters: float, useful: float) -> float:
        if self.beyond is None:
            return self.law.at(parameters, useful)
        size, text = self.law.seen_parameters.nearest(parameters), self.law.seen_bytes.nearest(useful)
        return self.law.at(size, text) * self.beyond.at(parameters, useful) / self.beyond.at(size, text)

    def _drawn(self, parameters: float, useful: float) -> float:
        """Half of the middle nine tenths of what the draws say, relative; 0 without draws."""
        if not self.law.draws:
            return 0.0
        size, text = self.law.seen_parameters.nearest(parameters), self.law.seen_bytes.nearest(useful)
        said = sorted(ScalingLaw(*draw, spread=0).at(size, text) for draw in self.law.draws)
        low, high = (said[round(share * (len(said) - 1))] for share in (0.05, 0.95))
        return (high - low) / 2 / self.law.at(size, text)


PYTHON_SOURCES = ScalingLaw(
    floor=0.06, a=0.25, alpha=0.30, b=1.80, beta=0.28, spread=0.10, seen_parameters=Span(1.4e6, 6.2e6),
    seen_bytes=Span(1.8e6, 12.7e6), source="OwnLM's own runs on Python packages",
)  # fmt: skip
"""Fitted to the runs in docs/experiments/001-demo-model.md."""

MASSIVETEXT_BYTES_PER_TOKEN = 4.48
"""10.5 TB of text, of which 300 billion tokens are 12.8 % (Rae et al. 2021, arXiv 2112.11446, sections 3 and 4)."""


def published(floor: float, a: float, alpha: float, b: float, beta: float) -> ScalingLaw:
    """A law in nats per token over parameters and tokens, for bits per byte over millions of parameters and bytes."""
    share = 1 / math.log(2) / MASSIVETEXT_BYTES_PER_TOKEN
    return ScalingLaw(
        floor * share, a * share * math.pow(1e6, -alpha), alpha,
        b * share * math.pow(1e6 / MASSIVETEXT_BYTES_PER_TOKEN, -beta), beta, spread=0.10,
        seen_parameters=Span(44e6, 16.2e9), seen_bytes=Span(1e9, 2e12),
        source="the Chinchilla law as replicated by Besiroglu et al. 2024",
    )  # fmt: skip


PUBLISHED = published(1.8172, 482.01, 0.3478, 2085.43, 0.3658)
"""Besiroglu et al. 2024 (arXiv 2404.10102), a replication of Hoffmann et al. 2022; web text, books and code."""


PROSE = ScalingLaw(
    floor=1.148, a=0.25, alpha=0.30, b=0.73, beta=0.73, spread=0.10, seen_parameters=Span(2.3e6, 2.4e6),
    seen_bytes=Span(2.9e6, 23e6), source="OwnLM's own runs on WikiText-2",
)  # fmt: skip
"""Through the three runs in docs/experiments/005-forecasts.md, which are all of one size: how the size counts is taken
from the law above."""


@cache
def built_in(prose: bool = False) -> Forecaster:
    """What there is without any runs of one's own: code goes on becoming easier, since much of it is copied."""
    return Forecaster(PROSE if prose else PYTHON_SOURCES, PUBLISHED)
