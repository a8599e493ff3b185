"""The chart of several runs."""

import json

from ownlm.studio.overlay import COLOURS, Curve, overlay


def test_the_present_run_lies_on_top_and_the_axis_holds_all() -> None:
    present = Curve("now", COLOURS[0], [(1, 8.0), (100, 1.4)])
    other = Curve("before", COLOURS[1], [(1, 9.0), (50, 1.8), (300, 1.1)])
    chart = overlay([present, other], "steps", "bits per byte")
    assert [series["name"] for series in chart["series"]] == ["now", "before"]
    assert chart["series"][0]["z"] > chart["series"][1]["z"]
    assert chart["series"][0]["lineStyle"]["width"] > chart["series"][1]["lineStyle"]["width"]
    assert chart["yAxis"]["min"] <= 1.1 < 1.4 < chart["yAxis"]["max"] < 8
    assert chart["xAxis"]["name"] == "steps"
    assert "before ends at 1.10" in chart["aria"]["label"]["description"]
    json.dumps(chart, allow_nan=False)


def test_a_run_without_points_is_left_out() -> None:
    chart = overlay([Curve("now", COLOURS[0], []), Curve("before", COLOURS[1], [(1, 2.0)])], "seconds", "bits per byte")
    assert [series["name"] for series in chart["series"]] == ["before"]
    empty = overlay([], "steps", "bits per byte")
    assert empty["series"] == []
    assert empty["yAxis"]["min"] < empty["yAxis"]["max"]
    assert "no points yet" in empty["aria"]["label"]["description"]


def test_colours_differ() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
