"""The chart that lays the curves of several runs over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ownlm.studio.curve import AXIS, LINE, ZOOM

COLOURS = (LINE, "#d97706", "#0f9f90", "#db2777", "#0284c7", "#65a30d", "#9a6b4f")
"""The present run's, then those of the others, which read well on the light and on the dark page."""
MOST_RUNS = len(COLOURS)


@dataclass(frozen=True)
class Curve:
    """A run's smoothed curve."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def overlay(curves: Sequence[Curve], axis: str, unit: str) -> dict[str, Any]:
    """The options of the chart; the first curve is the present run's, drawn on top. `axis` names what x counts."""
    drawn = [curve for curve in curves if curve.points]
    ends = [curve.points[-1][1] for curve in drawn]
    lowest = min((y for curve in drawn for _, y in curve.points), default=0.0)
    step = 0.5 if max(ends, default=0.0) > 1.5 else 0.1
    bottom = math.floor(0.97 * lowest / step) * step
    top = math.ceil(ZOOM * max(ends, default=1.0) / step) * step
    series = [
        {"name": curve.name, "type": "line", "data": list(curve.points), "showSymbol": False, "clip": True,
         "z": 3 if curve is curves[0] else 2, "itemStyle": {"color": curve.colour},
         "lineStyle": {"width": 2.5 if curve is curves[0] else 1.75, "color": curve.colour}}
        for curve in drawn
    ]  # fmt: skip
    ended = "; ".join(f"{curve.name} ends at {curve.points[-1][1]:.2f}" for curve in drawn)
    return {
        "animation": False,
        "grid": {"left": 4, "right": 16, "top": 26, "bottom": 22, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "order": "valueAsc"},
        "aria": {"enabled": True, "label": {"description": f"Loss in {unit} by {axis}: {ended or 'no points yet'}."}},
        "xAxis": {**AXIS, "type": "value", "min": 0, "max": "dataMax", "name": axis, "nameLocation": "middle",
                  "nameGap": 24, "splitLine": {"show": False},
                  "axisLabel": {**AXIS["axisLabel"], "showMaxLabel": False}},
        "yAxis": {**AXIS, "type": "value", "name": unit, "nameGap": 10, "min": round(bottom, 1), "max": round(top, 1),
                  "nameTextStyle": {**AXIS["nameTextStyle"], "align": "left", "padding": [0, 0, 0, -14]}},
        "series": series,
    }  # fmt: skip
