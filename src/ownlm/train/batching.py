"""How many windows a step has, and which draws of the data they are: pure functions of the step."""

from __future__ import annotations

from dataclasses import dataclass

from ownlm.runtime.errors import OwnLMError


@dataclass(frozen=True)
class BatchRamp:
    """Small batches first: in the first `steps` steps the batch is halved `halvings` times, then ever fewer, in equal
    parts of the steps (a batch-size ramp as in Brown et al. 2020, arXiv 2005.14165, in powers of two).
    """

    steps: int = 0
    halvings: int = 0

    def shift(self, step: int) -> int:
        """How often the batch is halved at `step`."""
        if step >= self.steps:
            return 0
        return self.halvings - step * self.halvings // self.steps

    def before(self, step: int, windows: int) -> int:
        """Windows drawn before `step`, where a full batch has `windows`."""
        ramped = sum(windows >> self.shift(each) for each in range(min(step, self.steps)))
        return ramped + windows * max(0, step - self.steps)


@dataclass(frozen=True)
class Batching:
    """`windows` a full step over all processes, `rows` at most a micro-batch; this process is `rank` of `size`."""

    windows: int
    rows: int
    ramp: BatchRamp = BatchRamp()
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        smallest = self.windows >> self.ramp.halvings
        if smallest < 1 or self.windows % (1 << self.ramp.halvings) or smallest % self.size:
            raise OwnLMError(
                f"A batch of {self.windows} windows, halved {self.ramp.halvings} times, cannot be shared equally by "
                f"{self.size} processes. Choose a multiple of {self.size << self.ramp.halvings}."
            )

    def draws(self, step: int) -> tuple[int, int]:
        """The first draw of `step` and how many there are, over all processes."""
        return self.ramp.before(step, self.windows), self.windows >> self.ramp.shift(step)

    def own(self, count: int) -> list[slice]:
        """This process's micro-batches among `count` draws of a step."""
        share = count // self.size
        begin = self.rank * share
        return [slice(at, min(at + self.rows, begin + share)) for at in range(begin, begin + share, self.rows)]
