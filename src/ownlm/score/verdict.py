"""What a scorer or a verifier says about one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`reasons` names the checks that failed; `value` in 0..1 is how much was right, for rewards and averages."""

    passed: bool
    reasons: tuple[str, ...] = ()
    value: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a verdict's value lies between 0 and 1, not at {self.value}")

    @classmethod
    def of(cls, checks: Mapping[str, float | bool]) -> Verdict:
        """From check -> score in 0..1: passed when every one is 1, the value is their mean (1 without checks)."""
        scores = {name: float(score) for name, score in checks.items()}
        failed = tuple(name for name, score in scores.items() if score < 1.0)
        return cls(not failed, failed, sum(scores.values()) / len(scores) if scores else 1.0)

    def and_also(self, check: str, holds: bool) -> Verdict:
        """This verdict with one more condition, which fails the whole and takes the value away when it does not hold.

        For conditions that no partial merit makes up for, such as an answer copied from the training text.
        """
        return self if holds else Verdict(False, (*self.reasons, check), 0.0)
