"""Drawings for pages: SVG by matplotlib, whose colours follow the page's light or dark theme.

A drawing is plain SVG text to be put into a page. Its ink and palette are CSS variables with a fallback, so that one
drawing reads well on white, on black and on its own. matplotlib's object interface is used, never pyplot, so that
servers may draw from several threads.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, ACCENT, SECOND, MUTED = "#1b1f2a", "#d5d8e0", "#4f46e5", "#0d9488", "#9aa1b1"
_VARIABLES = {INK: "--ink", FAINT: "--line", ACCENT: "--accent", SECOND: "--second", MUTED: "--muted-mark"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and scaled
    "svg.hashsalt": "ownlm",  # the same drawing gives the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # labels come from documents and may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}

_STYLING = threading.Lock()


@dataclass(frozen=True)
class Series:
    """A line: x and y of equal length."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Mark:
    """A value with an optional interval, under a label. `ours` is drawn in the accent colour."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False


def curve(series: Sequence[Series], x_label: str, y_label: str, smooth: int = 0, width: float = 5.6) -> str:
    """Lines over steps or tokens; with `smooth`, a running mean over that many points above the faint raw line."""

    def paint(axes: Axes) -> None:
        for each, colour in zip(series, (ACCENT, SECOND, MUTED, INK), strict=False):
            if smooth > 1 and len(each.y) >= 3 * smooth:
                axes.plot(each.x, each.y, color=colour, alpha=0.25, linewidth=0.8)
                axes.plot(each.x, running_mean(each.y, smooth), color=colour, linewidth=2, label=each.label)
            else:
                axes.plot(each.x, each.y, color=colour, linewidth=2, label=each.label)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
        if len(series) > 1:
            axes.legend(frameon=False)

    return _draw(paint, width, 0.46 * width)


@dataclass(frozen=True)
class Band:
    """A line with an interval around it: `x`, `y`, `low` and `high` of equal length."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def scatter_png(
    dots: Sequence[Series], curves: Sequence[Band], x_label: str, y_label: str, width: float = 6.4
) -> bytes:
    """Dots and the curves that were laid through them, both axes logarithmic, as a PNG for a file.

    Dots and curves of the same place in their lists have the same colour.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    buffer = io.BytesIO()
    with _STYLING, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, 0.66 * width), layout="constrained")
        axes = figure.add_subplot()
        for each, colour in zip(curves, (ACCENT, SECOND, MUTED, INK), strict=False):
            axes.plot(each.x, each.y, color=colour, linewidth=1.6, label=each.label)
            axes.fill_between(each.x, each.low, each.high, color=colour, alpha=0.12, linewidth=0)
        for group, colour in zip(dots, (ACCENT, SECOND, MUTED, INK), strict=False):
            axes.plot(group.x, group.y, "o", color=colour, markersize=5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=8)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if curves:
            axes.legend(frameon=False)
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last `window` values at each place (of fewer at the beginning)."""
    means, total = [], 0.0
    for at, value in enumerate(values):
        total += value - (values[at - window] if at >= window else 0.0)
        means.append(total / min(at + 1, window))
    return means


def bars(marks: Sequence[Mark], x_label: str, percent: bool = False, width: float = 5.6) -> str:
    """Horizontal bars from zero, in the given order from the top, with intervals as whiskers and values beside them."""
    rows = range(len(marks) - 1, -1, -1)
    reach = max([mark.high if mark.high is not None else mark.value for mark in marks] + [1e-9])

    def paint(axes: Axes) -> None:
        for row, mark in zip(rows, marks, strict=True):
            axes.barh(row, mark.value, height=0.62, color=ACCENT if mark.ours else MUTED)
            if mark.low is not None and mark.high is not None:
                axes.plot([mark.low, mark.high], [row, row], color=INK, linewidth=1.4, solid_capstyle="round")
            end = max(mark.value, mark.high or 0.0) + 0.015 * reach
            weight = "bold" if mark.ours else "normal"
            axes.text(end, row, _label(mark.value, percent), va="center", fontweight=weight)
        axes.set_yticks(list(rows), [_cut(mark.label) for mark in marks])
        axes.set_xlim(0, reach * 1.2)
        _finish(axes, x_label, percent)

    return _draw(paint, width, 0.7 + 0.42 * len(marks))


def ranges(marks: Sequence[Mark], x_label: str, percent: bool = False, width: float = 5.6) -> str:
    """Points with intervals, in the given order from the top: before and after, forecast and outcome."""
    rows = range(len(marks) - 1, -1, -1)

    def paint(axes: Axes) -> None:
        for row, mark in zip(rows, marks, strict=True):
            colour = ACCENT if mark.ours else MUTED
            if mark.low is not None and mark.high is not None:
                ends = [mark.low, mark.high]
                axes.plot(ends, [row, row], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot([mark.value], [row], "o", color=colour, markersize=9)
            label, place = _label(mark.value, percent), (mark.value, row)
            axes.annotate(label, place, (0, 8), textcoords="offset points", ha="center", fontsize=10)
        axes.set_yticks(list(rows), [_cut(mark.label) for mark in marks])
        axes.set_ylim(-0.6, len(marks) - 0.35)
        axes.margins(x=0.12)
        _finish(axes, x_label, percent)

    return _draw(paint, width, 0.7 + 0.42 * len(marks))


def _draw(paint: Callable[[Axes], None], width: float, height: float) -> str:
    """An SVG of `width` x `height` inches whose axes `paint` fills."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    # matplotlib's style is global: one drawing at a time.
    with _STYLING, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata=metadata)
    return themed(buffer.getvalue())


def _finish(axes: Axes, x_label: str, percent: bool) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_xlabel(x_label)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def _cut(label: str) -> str:
    line = " ".join(label.split())
    return line if len(line) <= 32 else line[:31] + "…"


def themed(svg: str) -> str:
    """matplotlib's SVG for a page: no XML head, no background, fluid width, and CSS variables for colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="patch_1">.*?</g>', "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="patch_2">\s*<path[^>]*style="fill: #ffffff"/>\s*</g>', "", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    head = r'\1 role="img" style="stroke-linejoin: round; stroke-linecap: butt"'
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', head, svg, count=1)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several drawings share a page, and ids must not come twice
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    return svg.strip()
