"""The options of the loss curve's chart (Apache ECharts, which NiceGUI serves itself)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

MOST_POINTS = 300
LONGEST_WINDOW = 40
ZOOM = 2.8
"""The axis ends at this many times the present loss, so that the first steps do not press the later ones flat."""
INK, GRID, LINE, FAINT, FORECAST = "#868d9c", "rgba(134,141,156,.18)", "#6d66f0", "rgba(109,102,240,.28)", "#0f9f90"
"""Colours that read well on the light and on the dark page: a canvas knows no CSS variables."""

AXIS: dict[str, Any] = {
    "axisLine": {"show": False}, "axisTick": {"show": False},
    "axisLabel": {"color": INK, "fontSize": 11, "hideOverlap": True}, "splitLine": {"lineStyle": {"color": GRID}},
    "nameTextStyle": {"color": INK, "fontSize": 11},
}  # fmt: skip
"""The look of both axes."""
Points = Sequence[tuple[int, float]]
X = TypeVar("X", int, float)


def thinned(points: Sequence[tuple[X, float]], most: int = MOST_POINTS) -> list[tuple[X, float]]:
    """At most this many points, each the mean of its neighbours, at the step of the last of them."""
    width = -(-len(points) // most)
    groups = [points[at : at + width] for at in range(0, len(points), max(1, width))]
    return [(group[-1][0], round(sum(y for _, y in group) / len(group), 4)) for group in groups]


def smoothed(points: Sequence[tuple[X, float]]) -> list[tuple[X, float]]:
    """The mean of the latest eighth of the points, `LONGEST_WINDOW` at most: it keeps up with the steep beginning."""
    total, first = 0.0, 0
    found: list[tuple[X, float]] = []
    for at, (x, y) in enumerate(points):
        total += y
        while at - first >= min(LONGEST_WINDOW, 1 + at // 8):
            total -= points[first][1]
            first += 1
        found.append((x, total / (at - first + 1)))
    return found


def options(
    points: Points, steps: int, unit: str, forecast: dict[str, Any], outcome: float | None, logarithmic: bool
) -> dict[str, Any]:
    """The chart: the loss of each batch, its moving average, the forecast's range and what came of it.

    A value that is not finite (a loss that diverged) is left out: neither the axis nor JSON could hold it.
    """
    points = [(x, y) for x, y in points if math.isfinite(y)]
    low, high, outcome = _finite(forecast.get("low")), _finite(forecast.get("high")), _finite(outcome)
    bottom, top = _span(points, low, outcome)
    lines: list[dict[str, Any]] = []
    if outcome is not None:
        lines.append({"yAxis": outcome, "lineStyle": {"color": FORECAST, "type": "solid", "width": 1.5},
                      "label": {"formatter": f"held out {outcome:.3f}", "position": "insideStartTop", "color": FORECAST,
                                "distance": 3}})  # fmt: skip
    area: list[Any] = []
    if low is not None and high is not None:
        label = {"show": outcome is None, "color": FORECAST, "position": "insideLeft", "fontSize": 11}
        area = [[{"yAxis": low, "name": f"forecast {low:.2f} to {high:.2f}", "label": label}, {"yAxis": high}]]
    mark = {"silent": True, "symbol": "none", "animation": False}
    return {
        "animation": False,
        "grid": {"left": 4, "right": 12, "top": 26, "bottom": 4, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "order": "valueAsc"},
        "aria": {"enabled": True, "label": {"description": _spoken(points, unit)}},
        "xAxis": {**AXIS, "type": "log" if logarithmic else "value", "min": 1 if logarithmic else 0,
                  "max": max(steps, 2), "splitLine": {"show": False}},
        "yAxis": {**AXIS, "type": "value", "name": unit, "nameGap": 10, "min": bottom, "max": top,
                  "nameTextStyle": {**AXIS["nameTextStyle"], "align": "left", "padding": [0, 0, 0, -14]}},
        "series": [
            {"name": "batch", "type": "line", "data": thinned(points), "showSymbol": False, "clip": True,
             "lineStyle": {"width": 1, "color": FAINT}, "itemStyle": {"color": FAINT}},
            {"name": "average", "type": "line", "data": thinned(smoothed(points)), "showSymbol": False, "clip": True,
             "lineStyle": {"width": 2.5, "color": LINE}, "itemStyle": {"color": LINE},
             "markLine": {**mark, "data": lines},
             "markArea": {**mark, "itemStyle": {"color": FORECAST, "opacity": 0.13}, "data": area}},
        ],
    }  # fmt: skip


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _span(points: Points, *more: float | None) -> tuple[float, float | None]:
    """The ends of the axis, on half units; `more` are further values that must be on it."""
    if len(points) < 2:
        return 0.0, None
    values = [y for _, y in points]
    step = 0.5 if max(values) > 1.5 else 0.1
    bottom = math.floor(0.97 * min([*values, *(each for each in more if each is not None)]) / step) * step
    top = math.ceil(min(max(values), ZOOM * smoothed(points)[-1][1]) / step) * step
    return round(bottom, 1), round(max(top, bottom + step), 1)


def _spoken(points: Points, unit: str) -> str:
    if not points:
        return "The loss curve; it has no points yet."
    return f"Loss in {unit}: {points[0][1]:.2f} at step {points[0][0]}, {points[-1][1]:.2f} at step {points[-1][0]}."
