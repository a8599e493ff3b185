import xml.etree.ElementTree as ET

import pytest

from ownlm.render.plots import Band, Mark, Series, bars, curve, ranges, running_mean, scatter_png

MARKS = [Mark("before $x^", 0.3, 0.2, 0.4), Mark("<b>after</b>", 0.5, 0.45, 0.55, ours=True), Mark("plain", 0.1)]


@pytest.mark.parametrize(
    "svg",
    [
        bars(MARKS, "share", percent=True),
        ranges(MARKS, "share"),
        curve([Series("a", range(100), range(100)), Series("b", range(100), range(100))], "x", "y", smooth=5),
    ],
)
def test_drawings_are_fluid_themed_and_harmless(svg: str) -> None:
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and "width" not in root.attrib and "viewBox" in root.attrib
    assert "var(--ink" in svg and "var(--accent" in svg
    assert "<b>" not in svg and "#000000" not in svg and "<style" not in svg and ' id="figure' not in svg


def test_labels_are_text_and_not_formulas() -> None:
    svg = bars(MARKS, "share", percent=True)
    assert "before $x^" in svg and "&lt;b&gt;after" in svg and "50.0 %" in svg


def test_the_same_drawing_gives_the_same_text() -> None:
    assert ranges(MARKS, "x") == ranges(MARKS, "x")


def test_the_style_of_others_is_left_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    bars(MARKS, "x")
    assert dict(matplotlib.rcParams) == before


def test_running_mean() -> None:
    assert running_mean([1, 2, 3, 4, 5], 3) == pytest.approx([1, 1.5, 2, 3, 4])


def test_a_scatter_is_a_png_that_shows_its_curves() -> None:
    band = Band("1M $parameters", [1, 10, 100], [2.0, 1.5, 1.2], [1.9, 1.4, 1.1], [2.1, 1.6, 1.3])
    dots = Series("", [2, 50], [1.9, 1.3])
    plain, drawn = scatter_png([dots], [], "x", "y"), scatter_png([dots], [band], "x", "y")
    assert plain[:8] == drawn[:8] == b"\x89PNG\r\n\x1a\n"
    assert plain != drawn == scatter_png([dots], [band], "x", "y")
