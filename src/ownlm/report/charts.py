"""The drawings of a report, each from the facts, None where there is nothing to draw."""

from __future__ import annotations

import math
from typing import Any

from ownlm.render.plots import Mark, Series, bars, curve, ranges
from ownlm.report.facts import Facts, Stage, dig

POINTS = 600
"""A curve is thinned to about this many points: more would not be seen, and make the page heavy."""


def charts(facts: Facts) -> dict[str, str | None]:
    """Name -> SVG or None: pretraining, sft, dpo, forecast, yardsticks, keystrokes, alignment."""
    return {
        "pretraining": _pretraining(facts.stages.get("base")),
        "sft": _loss(facts.stages.get("instructed"), "loss (nats a token)"),
        "dpo": _loss(facts.stages.get("aligned"), "loss (nats a pair)"),
        "forecast": _forecast(facts),
        "yardsticks": _yardsticks(facts.heldout),
        "keystrokes": _keystrokes(facts.heldout),
        "alignment": _alignment(facts.alignment),
    }


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _points(rows: list[dict[str, Any]], x: str, y: str) -> Series:
    read = ((_number(row.get(x)), _number(row.get(y))) for row in rows)
    pairs = [(a, b) for a, b in read if a is not None and b is not None]
    pairs = pairs[:: max(1, len(pairs) // POINTS)]
    return Series("", [a for a, _ in pairs], [b for _, b in pairs])


def _pretraining(stage: Stage | None) -> str | None:
    if stage is None:
        return None
    bits, loss = _points(stage.curve, "tokens", "bits_per_byte"), _points(stage.curve, "tokens", "loss")
    series, label = (bits, "bits per byte") if len(bits.x) >= 2 else (loss, "loss (nats a token)")
    if len(series.x) < 2:
        return None
    millions = Series("", [x / 1e6 for x in series.x], series.y)
    return curve([millions], "tokens read (millions)", label, smooth=max(2, len(series.x) // 40))


def _loss(stage: Stage | None, label: str) -> str | None:
    if stage is None:
        return None
    series = _points(stage.curve, "step", "loss")
    if len(series.x) < 2:
        return None
    return curve([series], "step", label, smooth=max(2, len(series.x) // 20))


def _forecast(facts: Facts) -> str | None:
    plan, reached = facts.plan.get("forecast"), _number(facts.base.get("heldout_bits_per_byte"))
    said = _number(dig(plan, "heldout_bits_per_byte"))
    if said is None or reached is None:
        return None
    forecast = Mark("forecast before training", said, _number(dig(plan, "low")), _number(dig(plan, "high")))
    return ranges([forecast, Mark("measured after it", reached, ours=True)], "held-out bits per byte")


def _interval(label: str, data: Any, ours: bool = False) -> Mark | None:
    value = _number(dig(data, "value")) if isinstance(data, dict) else _number(data)
    if value is None:
        return None
    return Mark(label, value, _number(dig(data, "low")), _number(dig(data, "high")), ours)


def _yardsticks(heldout: dict[str, Any]) -> str | None:
    bits = heldout.get("bits_per_byte")
    marks = [
        _interval("xz -9", dig(bits, "xz_cold")),
        _interval("n-gram model", dig(bits, "ngram")),
        _interval("xz -9, primed", dig(bits, "xz_primed")),
        _interval("this model", dig(bits, "model"), ours=True),
    ]
    found = sorted((mark for mark in marks if mark), key=lambda mark: -mark.value)
    return bars(found, "bits per byte (less is better)") if len(found) > 1 else None


def _keystrokes(heldout: dict[str, Any]) -> str | None:
    data = heldout.get("keystrokes")
    marks = [
        _interval("word list", dig(data, "words")),
        _interval("n-gram model", dig(data, "ngram")),
        _interval("this model", dig(data, "model"), ours=True),
    ]
    found = [mark for mark in marks if mark]
    return bars(found, "keystrokes saved (more is better)", percent=True) if found else None


def _alignment(alignment: dict[str, Any]) -> str | None:
    marks = []
    for key, label in (("pass_rate", "passes the checks"), ("gold", "gold score")):
        for when, ours in (("before", False), ("after", True)):
            mark = _interval(f"{label}, {when}", dig(alignment, when, key), ours)
            if mark:
                marks.append(mark)
    return ranges(marks, "held-out prompts", percent=True) if marks else None
