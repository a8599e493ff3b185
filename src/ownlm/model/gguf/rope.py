"""Rotary positions in a GGUF file: keys, and tensors of divisors a plane.

llama.cpp turns plane i by `freq_scale * base ** (-2i/d) / divisor[i]`; see `ggml_rope_ext` in
https://github.com/ggml-org/llama.cpp/blob/master/ggml/include/ggml.h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ownlm.model.config import DecoderConfig
from ownlm.model.gguf.fields import Fields
from ownlm.model.rope import Rope
from ownlm.runtime.errors import OwnLMError

DIVISORS, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"


def rope_keys(config: DecoderConfig) -> dict[str, Any]:
    """The metadata of the rotary positions, with `{arch}` in the keys."""
    rope = config.rope
    if rope is None:
        return {}
    keys: dict[str, Any] = {
        "{arch}.rope.dimension_count": rope.turning(config.head_dim),
        "{arch}.rope.freq_base": float(rope.theta),
    }
    match rope.kind:
        case "linear":
            keys |= {"{arch}.rope.scaling.type": "linear", "{arch}.rope.scaling.factor": float(rope.factor)}
        case "yarn":
            keys |= {
                "{arch}.rope.scaling.type": "yarn", "{arch}.rope.scaling.factor": float(rope.factor),
                "{arch}.rope.scaling.original_context_length": rope.original_context,
            }  # fmt: skip
        case "longrope":
            keys |= {
                "{arch}.rope.scaling.type": "longrope",
                "{arch}.rope.scaling.original_context_length": rope.original_context,
                "{arch}.rope.scaling.attn_factor": float(rope.attention_factor),
            }
    return keys


def rope_tensors(config: DecoderConfig) -> dict[str, Tensor]:
    """The divisors of the kinds that need them, `(planes,)` in fp32."""
    rope = config.rope
    if rope is not None and rope.kind == "llama3":
        plain = Rope(rope.theta, rope.share).frequencies(config.head_dim).double()
        return {DIVISORS: (plain / rope.frequencies(config.head_dim).double()).float()}
    if rope is not None and rope.kind == "longrope":
        return {LONG: torch.tensor(rope.long_factors), SHORT: torch.tensor(rope.short_factors)}
    return {}


def read_rope(fields: Fields, divisors: Mapping[str, Tensor], head_dim: int, context: int) -> Rope:
    """The rotary positions of a file.

    Raises:
        OwnLMError: a kind of scaling that the decoder does not compute.
    """
    theta = fields.number("{arch}.rope.freq_base", 10_000.0)
    share = fields.integer("{arch}.rope.dimension_count", head_dim) / head_dim
    kind = fields.text("{arch}.rope.scaling.type", "")
    factor = fields.number("{arch}.rope.scaling.factor", 1.0)
    original = fields.integer("{arch}.rope.scaling.original_context_length", context)
    if LONG in divisors and SHORT in divisors:
        attention = fields.number("{arch}.rope.scaling.attn_factor", 1.0)
        short, long = (tuple(divisors[name].tolist()) for name in (SHORT, LONG))
        return Rope(
            theta, share, "longrope", original_context=original, attention_factor=attention, short_factors=short,
            long_factors=long,
        )  # fmt: skip
    if DIVISORS in divisors:
        return _divided(theta, share, divisors[DIVISORS], head_dim, context)
    if kind in ("", "none") or factor == 1.0:
        return Rope(theta, share)
    if kind == "linear":
        return Rope(theta, share, "linear", factor)
    if kind == "yarn":
        return Rope(theta, share, "yarn", factor, original_context=original, attention_factor=yarn_attention(factor))
    raise OwnLMError(f"{fields.where} scales its rotary positions by {kind!r}, which this decoder does not compute.")


def yarn_attention(factor: float) -> float:
    """What llama.cpp multiplies cosines and sines with (arXiv 2309.00071, equation 22)."""
    return 0.1 * math.log(factor) + 1.0


def _divided(theta: float, share: float, divisors: Tensor, head_dim: int, context: int) -> Rope:
    """Llama 3.1's positions, where the divisors are those of such; else the divisors as longrope's, for any length."""
    wanted = Rope(theta, share).frequencies(head_dim) / divisors
    factor = round(float(divisors.max()), 4)
    for exponent in range(4, 21):
        rope = Rope(theta, share, "llama3", factor, original_context=1 << exponent)
        if factor > 0 and torch.allclose(rope.frequencies(head_dim), wanted, rtol=1e-6, atol=0.0):
            return rope
    every = tuple(divisors.tolist())
    return Rope(theta, share, "longrope", original_context=context, short_factors=every, long_factors=every)
