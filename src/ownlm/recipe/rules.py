"""Hyperparameters that follow from the size and the batch, each by a stated rule with its reason and source."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ownlm.recipe.shapes import Size
from ownlm.recipe.texts import Text
from ownlm.train.optimisers import Rates

VOCABULARIES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
USUAL = 32768
"""What open models of a billion parameters have, to compare with."""
NEARLY = 0.04
"""A larger vocabulary is taken where it reads at most so much less text with the same compute: contexts hold more."""
SMALLEST_BATCH = 4096
"""Tokens; with fewer, a processor spends more on the optimiser than it gains (docs/experiments/001-demo-model.md)."""
BATCH_FLOPS = 5e13
"""The compute at which that batch was found best."""
TUNED_WIDTH = 192
"""The width that the default rates were found at."""
LEAST_WARMUP = 10
"""Steps."""

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A value with what people read of it, and why it is this one."""

    value: T
    shown: str
    why: str


def vocabulary(size: Size, context: int, text: Text) -> Choice[int]:
    """The largest vocabulary that reads nearly as much text with the same compute as the best one does."""

    def read(count: int) -> float:
        return text.bytes_of(count) / size.config(count, context).training_flops_per_token(context)

    best = max(map(read, VOCABULARIES))
    chosen = max(count for count in VOCABULARIES if read(count) >= (1 - NEARLY) * best)
    config = size.config(chosen, context)
    head = f"its head takes {chosen * size.width / config.matmul_parameters:.0%} of the multiplications"
    if chosen < USUAL:
        other = USUAL * size.width / size.config(USUAL, context).matmul_parameters
        head += f", one of {USUAL:,} would take {other:.0%}"
    return Choice(
        chosen, f"{chosen:,}",
        f"{text.bytes_of(chosen):.2f} bytes a token; within {NEARLY:.0%} of the most text for its compute ({head})",
    )  # fmt: skip


def context(parameters: float) -> Choice[int]:
    """Tokens a window: longer ones for models large enough to use them."""
    steps = ((50e6, 512), (300e6, 1024), (1.5e9, 2048), (math.inf, 4096))
    chosen = next(length for limit, length in steps if parameters < limit)
    return Choice(
        chosen, f"{chosen:,} tokens",
        "attention's cost grows with it, and small models gain little from more (docs/experiments/001-demo-model.md)"
        if chosen == 512 else "as open models of this size are trained at first; it can be lengthened later",
    )  # fmt: skip


def batch(flops: float, window: int) -> Choice[int]:
    """Tokens a step, a power of two times the window: grows with compute as DeepSeek found (arXiv 2401.02954, eq. 1).

    Their exponent 0.327, from the batch that was found best here.
    """
    wanted = SMALLEST_BATCH * math.pow(max(1.0, flops / BATCH_FLOPS), 0.327)
    rounded = max(SMALLEST_BATCH, window, 1 << round(math.log2(wanted)))
    return Choice(
        rounded, f"{rounded:,} tokens",
        "many small steps learn more than few large ones at this compute" if rounded <= 2 * SMALLEST_BATCH else
        f"grows with compute^0.327 (Bi et al. 2024, arXiv 2401.02954): {SMALLEST_BATCH:,} at {BATCH_FLOPS:.0e} FLOP",
    )  # fmt: skip


def rates(width: int, batch_tokens: int) -> Choice[Rates]:
    """Peak rates: with the square root of the batch, twice at most; AdamW's also with 1 / sqrt(width).

    The square root: Malladi et al. 2022 (arXiv 2205.10287). Muon's update has the same size at every width (Jordan et
    al. 2024), so its rate needs no rule for it; embeddings' fall as in nanochat.
    """
    by_batch = min(2.0, math.sqrt(batch_tokens / SMALLEST_BATCH))
    by_width = min(1.0, math.sqrt(TUNED_WIDTH / width))
    found = Rates().scaled(by_batch, by_batch * by_width)
    tuned = by_batch == by_width == 1.0
    why = "found best at this width and batch (docs/experiments/001-demo-model.md)"
    if not tuned:
        why = (
            f"the tuned ones x {by_batch:.2g} for the batch (square root, Malladi et al. 2022)"
            + (f", AdamW's also x {by_width:.2g} for the width" if by_width < 1 else "")
        )  # fmt: skip
    return Choice(found, f"Muon {found.matrices:.3g}, AdamW {found.embeddings:.3g}", why)


def warmup(steps: int, share: float = 0.03) -> Choice[float]:
    """The share of the steps in which the rates rise: 3 %, ten steps at least, a fifth at most."""
    chosen = min(0.2, max(share, LEAST_WARMUP / steps))
    return Choice(
        chosen, f"{max(1, round(chosen * steps)):,} steps",
        "3 % of the steps, ten at least, a fifth at most: Adam's second moments need about so many (beta2 0.95)",
    )  # fmt: skip


def decay(share: float = 0.5) -> Choice[float]:
    """The share of the steps in which the rates fall to zero."""
    return Choice(
        share, f"last {share:.0%}",
        "warm-up, stable, linear decay to zero (Hu et al. 2024, arXiv 2404.06395): it may be cut short or lengthened",
    )  # fmt: skip


def row(name: str, choice: Choice[Any]) -> tuple[str, str, str]:
    """(name, value, why) for a table."""
    return name, choice.shown, choice.why
