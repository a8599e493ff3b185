"""Rotary positions (Su et al. 2021, arXiv 2104.09864) and the ways in which they are stretched to longer contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ownlm.runtime.errors import OwnLMError

RopeKind = Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"]
ROPE_KINDS: tuple[str, ...] = get_args(RopeKind)


@dataclass(frozen=True)
class Rope:
    """How far the rotary planes of a head turn from one position to the next.

    `theta` is the base and `share` the part of each head that turns (the rest stays as it is). The other fields belong
    to the kinds that stretch positions; `original_context` is the context before it was stretched by `factor`.

    - linear: every plane turns `factor` times slower (Chen et al. 2023, arXiv 2306.15595).
    - dynamic: the base grows with the text, once that is longer than `original_context` ("NTK-aware" scaling).
    - yarn: slow planes are stretched and fast ones kept, with a ramp between those that turn `beta_fast` and
      `beta_slow` times within the original context (Peng et al. 2023, arXiv 2309.00071).
    - longrope: a divisor a plane, one set for short texts and one beyond `original_context` (Ding et al. 2024,
      arXiv 2402.13753).
    - llama3: as yarn by wavelength, between `low_freq_factor` and `high_freq_factor` (Llama 3.1's report, 2407.21783).

    `attention_factor` multiplies cosines and sines (yarn, longrope).
    """

    theta: float = 100_000.0
    share: float = 1.0
    kind: RopeKind = "default"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ROPE_KINDS:
            raise OwnLMError(f"The model's config has the RoPE kind {self.kind!r}; known are {', '.join(ROPE_KINDS)}.")
        if not self.theta > 0 or not self.factor > 0 or not 0 < self.share <= 1:
            raise OwnLMError(
                f"The model's config has RoPE with theta={self.theta}, factor={self.factor} and a share of "
                f"{self.share} of each head; the first two must be above 0, the share above 0 and at most 1."
            )

    def turning(self, head_dim: int) -> int:
        """How many of a head's dimensions turn: an even number."""
        return int(head_dim * self.share)

    @property
    def changes_at(self) -> int | None:
        """The length beyond which the angles of all positions are others (longrope): what was cached is of no use."""
        return self.original_context if self.kind == "longrope" else None

    @property
    def depends_on_length(self) -> bool:
        """Whether the angles of a position depend on how long the text is."""
        return self.kind in ("dynamic", "longrope")

    def frequencies(self, head_dim: int, length: int = 0, device: torch.device | None = None) -> Tensor:
        """Radians a position of each plane, fastest first, `(turning / 2,)` in fp32, for a text of `length` positions.

        Raises:
            OwnLMError: longrope with another number of divisors than planes.
        """
        size = self.turning(head_dim)
        theta = self.theta
        if self.kind == "dynamic" and length > self.original_context:
            stretch = self.factor * length / self.original_context - (self.factor - 1)
            theta *= stretch ** (size / (size - 2))
        powers = theta ** (torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
        match self.kind:
            case "linear":
                return 1.0 / powers / self.factor
            case "yarn":
                return self._yarn(powers, size)
            case "longrope":
                return 1.0 / (self._divisors(length, len(powers), device) * powers)
            case "llama3":
                return self._llama3(1.0 / powers)
        return 1.0 / powers

    def _yarn(self, powers: Tensor, size: int) -> Tensor:
        def plane(turns: float) -> float:
            """The (fractional) plane that turns so often within the original context; arXiv 2309.00071, section 3.2."""
            return size * math.log(self.original_context / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

        low, high = plane(self.beta_fast), plane(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        planes = torch.arange(size // 2, dtype=torch.float32, device=powers.device)
        stretched = ((planes - low) / (high - low if high != low else 0.001)).clamp(0, 1)
        kept = 1.0 - stretched
        return 1.0 / (self.factor * powers) * (1.0 - kept) + 1.0 / powers * kept

    def _divisors(self, length: int, planes: int, device: torch.device | None) -> Tensor:
        factors = self.long_factors if length > self.original_context else self.short_factors
        if len(factors) != planes:
            raise OwnLMError(f"The model's config has {len(factors)} longrope factors for {planes} rotary planes.")
        return torch.tensor(factors, dtype=torch.float32, device=device)

    def _llama3(self, plain: Tensor) -> Tensor:
        wavelength = 2 * math.pi / plain
        turns = self.original_context / wavelength
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        between = (1 - kept) * plain / self.factor + kept * plain
        slow, fast = turns < self.low_freq_factor, turns > self.high_freq_factor
        return torch.where(slow, plain / self.factor, torch.where(fast, plain, between))

    def tables(self, positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the angles, in fp32, two tensors `(..., turning)`.

        `positions`: `(time,)` or `(batch, time)`. Angle i and i + turning/2 are the same: the "rotate half" layout of
        the Hugging Face checkpoints. Where the angles depend on the length of the text, it is taken from each row's
        last position: a row's answer does not depend on its neighbours.
        """
        if self.depends_on_length:
            lengths = (positions.amax(-1) + 1).reshape(-1).tolist()
            rows = torch.stack([self.frequencies(head_dim, length, positions.device) for length in lengths])
            frequencies = rows.view(*positions.shape[:-1], 1, -1)
        else:
            frequencies = self.frequencies(head_dim, 0, positions.device)
        angles = positions.float().unsqueeze(-1) * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        if self.attention_factor == 1.0:
            return angles.cos(), angles.sin()
        return angles.cos() * self.attention_factor, angles.sin() * self.attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the first dimensions of `x` `(batch, time, heads, head_dim)` by angles `(..., time, turning)`, in fp32."""
    turning = cos.shape[-1]
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    wide = x[..., :turning].float()
    first, second = wide.chunk(2, dim=-1)
    turned = (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
    return turned if turning == x.shape[-1] else torch.cat((turned, x[..., turning:]), dim=-1)
