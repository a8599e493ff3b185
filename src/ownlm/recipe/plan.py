"""A plan: every choice of a run that depends on the machine and the budget, fixed once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownlm.model.config import DecoderConfig
from ownlm.model.kernels import Kernels
from ownlm.recipe.memory import Memory
from ownlm.runtime import atomic
from ownlm.train.optimisers import Rates
from ownlm.train.schedule import Schedule

PLAN = "plan.json"


@dataclass(frozen=True)
class Forecast:
    """What pre-training is expected to come to; `low` and `high` bound held-out bits per byte in about 9 of 10 runs."""

    seconds: float
    tokens: int
    heldout_bits_per_byte: float
    low: float
    high: float


@dataclass(frozen=True)
class Seconds:
    """The budget's shares, in seconds."""

    pretrain: float
    sft: float
    preferences: float
    dpo: float
    evaluate: float
    overhead: float


@dataclass(frozen=True)
class Plan:
    """See the module. A step has `micro_batches` of `rows` windows of `context` tokens.

    `warmup` and `decay` are the schedule's shares of the steps. `memory` is what training is expected to take, `law`
    says in words what forecast the loss. `reasons` are (name, value, why) for people. `packed_rows`: see `Machine`;
    who opens the model quantised goes by it.
    """

    minutes: float
    device: str
    machine: str
    threads: int
    kernels: Kernels
    matmul_gflops: dict[str, float]
    vocabulary: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    rows: int
    steps: int
    parameters: int
    rates: Rates
    seconds: Seconds
    sft_steps: int
    align_prompts: int
    dpo_steps: int
    dpo_rows: int
    dpo_length: int
    heldout_prompts: int
    heldout_bytes: int
    excerpts: int
    forecast: Forecast
    reasons: tuple[tuple[str, str, str], ...] = field(default=())
    packed_rows: dict[str, int] = field(default_factory=dict)
    micro_batches: int = 1
    warmup: float = 0.03
    decay: float = 0.5
    memory: Memory | None = None
    law: str = ""

    @property
    def batch_tokens(self) -> int:
        """Tokens a step."""
        return self.rows * self.micro_batches * self.context

    @property
    def schedule(self) -> Schedule:
        """The learning rates' course over the plan's steps."""
        return Schedule(self.steps, warmup=self.warmup, decay=self.decay)

    @property
    def peak_flops(self) -> float:
        """The measured matmul rate in the plan's precision, FLOP/s."""
        return self.matmul_gflops[self.kernels.precision] * 1e9

    def config(self, vocabulary: int) -> DecoderConfig:
        """The decoder's shape with the tokenizer's true vocabulary."""
        return DecoderConfig(
            vocabulary, self.layers, self.width, self.heads, self.kv_heads, self.head_dim, self.ffn, self.context
        )

    def write(self, folder: Path) -> None:
        """`plan.json`"""
        atomic.write_json(folder / PLAN, {**dataclasses.asdict(self), "batch_tokens": self.batch_tokens})

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The reverse of `write`."""
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
        del data["batch_tokens"]
        parts: dict[str, type[Any]] = {"kernels": Kernels, "rates": Rates, "seconds": Seconds, "forecast": Forecast}
        data |= {name: part(**data[name]) for name, part in parts.items()}
        if data.get("memory"):
            data["memory"] = Memory(**data["memory"])
        return cls(**data | {"reasons": tuple((a, b, c) for a, b, c in data["reasons"])})
