"""Axes have round ticks, and curves stay inside them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.training.report import axes, curves
from patchmill.training.report.curves import ChartStyle, Line, Point, chart

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1)


@given(VALUES, st.booleans(), st.booleans())
def test_all_values_are_on_the_axis_and_ticks_are_round(values, zero, tight):
    axis = axes.linear(values, zero=zero, tight=tight)
    assert axis.low < axis.high
    assert all(-1e-6 <= axis.position(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 11
    assert not zero or axis.low <= 0 <= axis.high
    marks = [mark for mark, _ in axis.ticks]
    step = marks[1] - marks[0]
    leading = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert any(math.isclose(leading, it, rel_tol=1e-3) for it in (1, 2, 5, 10))
    assert all(abs(mark / step - round(mark / step)) < 1e-3 for mark in marks)
    assert len({label for _, label in axis.ticks}) == len(marks)


@pytest.mark.parametrize(
    ("values", "percent", "labels"),
    [
        ((0, 10), False, ["0", "2", "4", "6", "8", "10"]),
        ((0, 0.03), False, ["0", "0.005", "0.010", "0.015", "0.020", "0.025", "0.030"]),
        ((0, 0.7), True, ["0%", "10%", "20%", "30%", "40%", "50%", "60%", "70%"]),
        ((-1, 1), False, ["−1.0", "−0.5", "0", "0.5", "1.0"]),  # noqa: RUF001
        ((0, 52_000), False, ["0", "10,000", "20,000", "30,000", "40,000", "50,000", "60,000"]),
    ],
)
def test_ticks_say_round_numbers(values, percent, labels):
    assert [label for _, label in axes.linear(values, percent=percent).ticks] == labels


def test_doublings_are_equally_wide():
    axis = axes.doubling([1, 4, 16, 64, 256])
    assert [label for _, label in axis.ticks] == ["1", "4", "16", "64", "256"]
    assert [axis.position(it) for it in (1, 4, 16, 64, 256)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1]
    )


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e3, 1e3)), min_size=1, max_size=900))
def test_curves_stay_inside_their_axes(pairs):
    drawn = chart(ChartStyle("Loss", "step"), [Line("", [Point(*it) for it in sorted(pairs)])])
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', drawn)
    at = [tuple(map(float, pair.split(","))) for pair in line.split(" ")]
    assert len(at) == (len(pairs) if len(pairs) <= curves.MOST_POINTS else curves.BUCKETS)
    assert all(curves.LEFT <= x <= curves.WIDTH - curves.RIGHT for x, _ in at)
    assert all(curves.TOP <= y <= curves.HEIGHT - curves.BOTTOM for _, y in at)


def test_long_curves_are_means_within_their_range():
    points = [Point(x, x % 2) for x in range(1600)]
    drawn = chart(ChartStyle("Loss", "step"), [Line("", points)])
    (band,) = re.findall(r'<polygon[^>]*points="([^"]*)"', drawn)
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', drawn)
    ys = {float(pair.split(",")[1]) for pair in line.split(" ")}
    edges = {float(pair.split(",")[1]) for pair in band.split(" ")}
    top, bottom = curves.TOP, curves.HEIGHT - curves.BOTTOM
    assert ys == {(top + bottom) / 2} and edges == {top, bottom}


def test_values_that_are_not_finite_are_not_drawn():
    nowhere = [Point(1, math.nan), Point(math.inf, 2), Point(3, -math.inf)]
    assert chart(ChartStyle("Loss", "step"), [Line("", nowhere)]) == ""
    assert chart(ChartStyle("Loss", "step"), []) == ""
    drawn = chart(ChartStyle("Loss", "step"), [Line("", [*nowhere, Point(4, 5.0)])])
    assert "nan" not in drawn and "inf" not in drawn and drawn.count("<circle") == 1


def test_a_level_is_within_the_axes_and_named():
    look = ChartStyle("kNN", "epoch", level=("untrained", 0.9), percent=True, form="{:.0%}".format)
    drawn = chart(look, [Line("", [Point(0, 0.1), Point(1, 0.2)])])
    (y,) = re.findall(r'<line class="level"[^>]* y1="([^"]*)"', drawn)
    assert curves.TOP <= float(y) < curves.HEIGHT / 3 and "untrained 90%" in drawn


def test_curves_have_a_description_for_screen_readers():
    lines = [Line("h", [Point(1, 0.5), Point(2, 0.75)]), Line("z", [Point(1, 0.25)])]
    drawn = chart(ChartStyle("Cosine", "patches"), lines)
    (said,) = re.findall(r'aria-label="([^"]*)"', drawn)
    assert said == (
        "Cosine. h: 0.5 at patches 1, 0.75 at patches 2; between 0.5 and 0.75. "
        "z: 0.25 at patches 1, 0.25 at patches 1; between 0.25 and 0.25."
    )
