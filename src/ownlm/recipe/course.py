"""A course: how a base model is trained, its data and its weights apart; fixed once, so that resuming repeats it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.model.kernels import Kernels
from ownlm.recipe.hyperparameters import Hyperparameters
from ownlm.recipe.plan import Plan
from ownlm.train.optimisers import Rates
from ownlm.train.schedule import Schedule


@dataclass(frozen=True)
class Course:
    """`micro_batches` of `rows` windows of `context` tokens a step; `warmup` and `decay` are shares of the `steps`.

    `peak_flops` is the machine's measured matmul rate in FLOP/s. Models are measured on `heldout_bytes` of a corpus.
    What one has `chosen` oneself goes before `warmup`, `decay` and `rates`.
    """

    device: str
    threads: int
    kernels: Kernels
    context: int
    rows: int
    micro_batches: int
    steps: int
    warmup: float
    decay: float
    rates: Rates
    peak_flops: float
    heldout_bytes: int
    chosen: Hyperparameters = field(default_factory=Hyperparameters)

    @classmethod
    def of(cls, plan: Plan, steps: int | None = None, chosen: Hyperparameters | None = None) -> Course:
        """What a plan says of pre-training; with `steps`, of a run of so many."""
        names = {each.name for each in dataclasses.fields(cls)} & {each.name for each in dataclasses.fields(plan)}
        found = {name: getattr(plan, name) for name in names}
        found |= {"peak_flops": plan.peak_flops, "chosen": chosen or Hyperparameters()}
        return cls(**found | {"steps": plan.steps if steps is None else steps})

    @property
    def schedule(self) -> Schedule:
        """The learning rates' course."""
        return self.chosen.course(self.steps, self.warmup, self.decay)

    @property
    def batch_tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.micro_batches * self.context

    @classmethod
    def read(cls, path: Path) -> Course:
        """From a JSON file that holds the fields of `dataclasses.asdict`, and perhaps more."""
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found = {each.name: data[each.name] for each in dataclasses.fields(cls) if each.name != "chosen"}
        return cls(**found | {"kernels": Kernels(**found["kernels"]), "rates": Rates(**found["rates"])})
