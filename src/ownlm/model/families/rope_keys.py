"""Rotary positions in a `config.json`: as transformers writes them now, and as it did before version 5."""

from __future__ import annotations

import math
from typing import Any

from ownlm.model.families.keys import Keys
from ownlm.model.rope import ROPE_KINDS, Rope
from ownlm.runtime.errors import OwnLMError


def read_rope(keys: Keys, theta: float, share: float = 1.0, context_key: str = "max_position_embeddings") -> Rope:
    """The rotary positions of the keys `rope_parameters`, or `rope_theta`, `rope_scaling` and their relatives.

    `theta` and `share` are the family's defaults. Where both tables are there `rope_scaling` counts, as it does in
    transformers: people add it to a config to stretch its context.
    """
    context = keys.integer(context_key)
    original = keys.optional_integer("original_max_position_embeddings")
    theta = keys.number("rope_theta", theta)
    share = keys.number("partial_rotary_factor", share)
    table = keys.table("rope_parameters")
    older = keys.table("rope_scaling")
    return rope_of(older or table, theta, share, context, original)


def rope_of(table: Keys | None, theta: float, share: float, context: int, original: int | None = None) -> Rope:
    """The rotary positions that one table of `rope_parameters` or `rope_scaling` describes.

    `context` is the config's `max_position_embeddings`; `original` stands outside the table in Phi-3's configs.

    Raises:
        OwnLMError: an unknown kind, or a key that is not understood.
    """
    if table is None:
        return Rope(theta, share)
    kind = table.optional_text("rope_type") or table.text("type", "default")
    table.ignore("type", "rope_type", "finetuned")
    kind = {"su": "longrope"}.get(kind, kind)
    if kind not in ROPE_KINDS:
        raise OwnLMError(f"{table.where} has rope_type={kind!r}; known are {', '.join(ROPE_KINDS)}.")
    theta = table.number("rope_theta", theta)
    share = table.number("partial_rotary_factor", share)
    inner = table.optional_integer("original_max_position_embeddings")
    original = original or inner or context
    known: dict[str, Any] = {}
    match kind:
        case "linear":
            known = {"factor": table.number("factor")}
        case "dynamic":
            known = {"factor": table.number("factor"), "original_context": context}
        case "yarn":
            factor = table.optional_number("factor") or context / original
            known = {
                "factor": factor, "original_context": original,
                "attention_factor": _yarn_attention(table, factor),
                "beta_fast": table.optional_number("beta_fast") or 32.0,
                "beta_slow": table.optional_number("beta_slow") or 1.0,
                "truncate": table.flag("truncate", True),
            }  # fmt: skip
        case "longrope":
            factor = table.optional_number("factor") or context / original
            stretched = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
            known = {
                "factor": factor, "original_context": original,
                "attention_factor": table.number("attention_factor", stretched),
                "short_factors": table.numbers("short_factor"), "long_factors": table.numbers("long_factor"),
            }  # fmt: skip
        case "llama3":
            known = {
                "factor": table.number("factor"), "original_context": original,
                "low_freq_factor": table.number("low_freq_factor"),
                "high_freq_factor": table.number("high_freq_factor"),
            }  # fmt: skip
    table.close()
    return Rope(theta, share, kind, **known)  # type: ignore[arg-type]


def _yarn_attention(table: Keys, factor: float) -> float:
    """`0.1 ln(factor) + 1` (arXiv 2309.00071, equation 22), or the quotient that `mscale` and its relative ask for."""
    given = table.optional_number("attention_factor")
    over, under = table.optional_number("mscale"), table.optional_number("mscale_all_dim")

    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given is not None:
        return given
    return grown(over) / grown(under) if over and under else grown(1.0)


def write_scaling(rope: Rope) -> dict[str, Any] | None:
    """The value of `rope_scaling`: the spelling that transformers (any version), vLLM and llama.cpp read."""
    table: dict[str, Any] = {"rope_type": rope.kind}
    match rope.kind:
        case "default":
            return None
        case "linear" | "dynamic":
            table["factor"] = rope.factor
        case "yarn":
            table |= {
                "factor": rope.factor, "original_max_position_embeddings": rope.original_context,
                "attention_factor": rope.attention_factor, "beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow,
                "truncate": rope.truncate,
            }  # fmt: skip
        case "longrope":
            table |= {
                "factor": rope.factor, "original_max_position_embeddings": rope.original_context,
                "attention_factor": rope.attention_factor, "short_factor": list(rope.short_factors),
                "long_factor": list(rope.long_factors),
            }  # fmt: skip
        case "llama3":
            table |= {
                "factor": rope.factor, "original_max_position_embeddings": rope.original_context,
                "low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor,
            }  # fmt: skip
    return table


def context_of(context: int, rope: Rope | None) -> int:
    """How many tokens a model takes: with dynamic scaling `factor` times as many as its config's positions."""
    return int(context * rope.factor) if rope is not None and rope.kind == "dynamic" else context


def positions_of(context: int, rope: Rope | None) -> int:
    """The reverse of `context_of`."""
    return rope.original_context if rope is not None and rope.kind == "dynamic" else context
