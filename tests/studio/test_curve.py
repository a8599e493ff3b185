"""The loss curve's points and its chart."""

import json
import math

import pytest

from ownlm.studio.curve import MOST_POINTS, ZOOM, options, smoothed, thinned


def test_thinning_keeps_the_last_step_and_the_mean() -> None:
    points = [(step, float(step)) for step in range(1, 5001)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS
    assert few[-1][0] == 5000
    assert sum(y for _, y in few) / len(few) == pytest.approx(2500, rel=0.01)
    assert thinned([]) == []
    assert thinned([(1, 2.0)]) == [(1, 2.0)]


def test_smoothing_follows_a_constant_and_keeps_up_with_a_steep_beginning() -> None:
    assert smoothed([(step, 2.0) for step in range(300)])[-1] == (299, pytest.approx(2.0))
    falling = [(step, 8 * 0.9**step) for step in range(40)]
    assert smoothed(falling)[0] == falling[0]
    assert all(mean > value - 1e-9 for (_, mean), (_, value) in zip(smoothed(falling), falling, strict=True))
    assert smoothed(falling)[20][1] < 1.25 * falling[20][1]


def test_the_axis_holds_the_forecast_and_does_not_press_the_curve_flat() -> None:
    points = [(step, 8 / step**0.3) for step in range(1, 400)]
    chart = options(points, 400, "bits per byte", {"low": 0.9, "high": 1.3}, None, False)
    assert chart["yAxis"]["min"] <= 0.9
    assert chart["yAxis"]["max"] <= ZOOM * points[-1][1] + 0.5 + 0.2
    assert chart["xAxis"]["max"] == 400
    area = chart["series"][1]["markArea"]["data"][0]
    assert (area[0]["yAxis"], area[1]["yAxis"]) == (0.9, 1.3)


def test_without_a_forecast_and_without_points_there_is_a_chart_all_the_same() -> None:
    chart = options([], 0, "bits per byte", {"low": None}, None, True)
    assert chart["series"][0]["data"] == []
    assert chart["series"][1]["markArea"]["data"] == []
    assert chart["xAxis"]["type"] == "log"


def test_the_outcome_is_a_line() -> None:
    chart = options([(1, 3.0), (2, 2.0)], 2, "bits per byte", {}, 1.254, False)
    assert chart["series"][1]["markLine"]["data"][0]["yAxis"] == 1.254
    assert chart["yAxis"]["min"] < 1.254


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_left_out(odd: float) -> None:
    points = [(1, 3.0), (2, odd), (3, 2.0)]
    chart = options(points, 3, "bits per byte", {"low": odd, "high": 2.5}, odd, False)
    assert chart["series"][0]["data"] == [(1, 3.0), (3, 2.0)]
    assert chart["series"][1]["markArea"]["data"] == chart["series"][1]["markLine"]["data"] == []
    json.dumps(chart, allow_nan=False)
    assert options([(1, odd)], 1, "bits per byte", {}, None, False)["series"][0]["data"] == []
