"""The options of the loss curve's chart (Apache ECharts, which NiceGUI serves itself)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_POINTS = 300
SMOOTHING = 0.95
"""Of an exponential moving average over the steps."""
INK, GRID, LINE, FAINT, FORECAST = "#868d9c", "rgba(134,141,156,.18)", "#6d66f0", "rgba(109,102,240,.28)", "#0f9f90"
"""Colours that read well on the light and on the dark page: a canvas knows no CSS variables."""

Points = Sequence[tuple[int, float]]


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[int, float]]:
    """At most this many points, each the mean of its neighbours, at the step of the last of them."""
    width = -(-len(points) // most)
    groups = [points[at : at + width] for at in range(0, len(points), max(1, width))]
    return [(group[-1][0], round(sum(y for _, y in group) / len(group), 4)) for group in groups]


def smoothed(points: Points, weight: float = SMOOTHING) -> list[tuple[int, float]]:
    """The exponential moving average, without the pull towards zero at its beginning (Kingma & Ba 2015, section 3)."""
    total, scale, found = 0.0, 0.0, []
    for x, y in points:
        total, scale = weight * total + (1 - weight) * y, weight * scale + 1 - weight
        found.append((x, total / scale))
    return found


def options(
    points: Points, steps: int, unit: str, forecast: dict[str, Any], outcome: float | None, logarithmic: bool
) -> dict[str, Any]:
    """The chart: the loss of each batch, its moving average, the forecast's range and what came of it."""
    low, high = forecast.get("low"), forecast.get("high")
    axis: dict[str, Any] = {
        "axisLine": {"show": False}, "axisTick": {"show": False},
        "axisLabel": {"color": INK, "fontSize": 11, "hideOverlap": True}, "splitLine": {"lineStyle": {"color": GRID}},
        "nameTextStyle": {"color": INK, "fontSize": 11},
    }  # fmt: skip
    top = _top(points)
    lines: list[dict[str, Any]] = []
    if outcome is not None:
        lines.append({"yAxis": outcome, "lineStyle": {"color": FORECAST, "type": "solid", "width": 1.5},
                      "label": {"formatter": f"held out {outcome:.3f}", "position": "insideStartTop", "color": FORECAST,
                                "distance": 3}})  # fmt: skip
    area: list[Any] = []
    if isinstance(low, int | float) and isinstance(high, int | float):
        label = {"show": outcome is None, "color": FORECAST, "position": "insideLeft", "fontSize": 11}
        area = [[{"yAxis": low, "name": f"forecast {low:.2f} to {high:.2f}", "label": label}, {"yAxis": high}]]
    mark = {"silent": True, "symbol": "none", "animation": False}
    return {
        "animation": False,
        "grid": {"left": 4, "right": 12, "top": 26, "bottom": 4, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "order": "valueAsc"},
        "aria": {"enabled": True, "label": {"description": _spoken(points, unit)}},
        "xAxis": {**axis, "type": "log" if logarithmic else "value", "min": 1 if logarithmic else 0,
                  "max": max(steps, 2), "splitLine": {"show": False}},
        "yAxis": {**axis, "type": "value", "scale": True, "name": unit, "nameGap": 10, "max": top,
                  "nameTextStyle": {**axis["nameTextStyle"], "align": "left", "padding": [0, 0, 0, -22]}},
        "series": [
            {"name": "batch", "type": "line", "data": thinned(points), "showSymbol": False, "clip": True,
             "lineStyle": {"width": 1, "color": FAINT}, "itemStyle": {"color": FAINT}},
            {"name": "average", "type": "line", "data": thinned(smoothed(points)), "showSymbol": False, "clip": True,
             "lineStyle": {"width": 2.5, "color": LINE}, "itemStyle": {"color": LINE},
             "markLine": {**mark, "data": lines},
             "markArea": {**mark, "itemStyle": {"color": FORECAST, "opacity": 0.13}, "data": area}},
        ],
    }  # fmt: skip


def _top(points: Points) -> float | None:
    """Where the curve begins, so that the last, slow half of learning is not pressed flat by the first steps."""
    return None if len(points) < 2 else round(max(y for _, y in points[:3]) * 1.03, 2)


def _spoken(points: Points, unit: str) -> str:
    if not points:
        return "The loss curve; it has no points yet."
    return f"Loss in {unit}: {points[0][1]:.2f} at step {points[0][0]}, {points[-1][1]:.2f} at step {points[-1][0]}."
