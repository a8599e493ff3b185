"""How weights are quantised: int8 by output channel, or int4 by groups of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ownlm.runtime.errors import OwnLMError

GROUPS = (32, 64, 128)
"""The group sizes of int4, in inputs; others' kernels know the same."""
DEFAULT_GROUP = 64
BITS_OF_SCALE = 16
VALID = ("int8", "int4", *(f"int4:{group}" for group in GROUPS))


@dataclass(frozen=True)
class Scheme:
    """Symmetric weight-only quantisation: a weight is its code times a scale.

    `bits` 8: codes from -127 to 127, a scale an output channel (`group` None). `bits` 4: codes from -8 to 7, a scale a
    `group` of inputs of a channel. Activations keep their precision.
    """

    bits: Literal[4, 8]
    group: int | None = None

    def __post_init__(self) -> None:
        if (self.bits, self.group) != (8, None) and (self.bits != 4 or self.group not in GROUPS):
            raise OwnLMError(f"There is no quantisation to {self.bits} bits with groups of {self.group}; {_valid()}.")

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """From "int8", "int4" (groups of 64) or "int4:32", "int4:64", "int4:128".

        Raises:
            OwnLMError: anything else; the message lists these.
        """
        if text not in VALID:
            raise OwnLMError(f"{text!r} is no quantisation; {_valid()}.")
        kind, _, group = text.partition(":")
        return cls(8) if kind == "int8" else cls(4, int(group) if group else DEFAULT_GROUP)

    def __str__(self) -> str:
        return "int8" if self.group is None else f"int4:{self.group}"

    def fitting(self, inputs: int) -> Scheme:
        """This scheme for a matrix of that many inputs: int4 takes the largest group, at most its own, that divides
        them; where none does, the matrix becomes int8."""
        if self.group is None or inputs % self.group == 0:
            return self
        smaller = [group for group in GROUPS if group < self.group and inputs % group == 0]
        return Scheme(4, max(smaller)) if smaller else Scheme(8)

    @property
    def bits_per_weight(self) -> float:
        """What a weight takes on disk, its share of a scale included (a channel's scale is not counted)."""
        return self.bits + (BITS_OF_SCALE / self.group if self.group else 0)


def _valid() -> str:
    return f"the valid ones are {', '.join(VALID)}"
