"""Line charts as inline SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from patchmill.training.report import axes
from patchmill.training.report.axes import Axis
from patchmill.training.report.markup import tag, text

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40  # margins around the curves
MOST_POINTS = 400  # longer curves are drawn as BUCKETS means, with a band from min to max
BUCKETS = 160
MARKED = 60  # points of shorter curves are marked, with their values as tooltips


class Point(NamedTuple):
    x: float
    y: float


class Bucket(NamedTuple):
    """Mean of neighbouring points, and their range."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class ChartStyle:
    """Titles, axes and number format of a chart."""

    title: str
    x: str
    y: str = ""  # unit of y
    percent: bool = False
    zero: bool = False  # y starts at 0
    doubling: bool = False  # x has a logarithmic axis
    level: tuple[str, float] | None = None  # name and value of a horizontal line
    ends: tuple[float, float] | None = None  # range of x, if charts share it
    form: Callable[[float], str] = field(default=lambda value: f"{value:.4g}")


def chart(style: ChartStyle, lines: Sequence[Line]) -> str:
    """Draw a figure; empty if no point is finite."""
    lines = [Line(line.name, [p for p in line.points if _finite(p)]) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    x_axis, y_axis = _axes(style, lines)
    shapes = [
        *_grid(style, x_axis, y_axis),
        *_level(style, x_axis, y_axis),
        *(part for i, line in enumerate(lines) for part in _line(style, line, i, x_axis, y_axis)),
    ]
    description = f"{style.title}. {' '.join(_summary(style, line) for line in lines)}"
    svg = tag("svg", *shapes, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)
    return tag("figure", _caption(style, lines), svg, class_="chart")


def _finite(point: Point) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)


def _axes(style: ChartStyle, lines: Sequence[Line]) -> tuple[Axis, Axis]:
    xs = [point.x for line in lines for point in line.points]
    ys = [point.y for line in lines for point in line.points]
    level = [style.level[1]] if style.level else []
    x_axis = (
        axes.doubling(xs) if style.doubling else axes.linear([*xs, *(style.ends or ())], tight=True)
    )
    return x_axis, axes.linear([*ys, *level], zero=style.zero, percent=style.percent)


def _caption(style: ChartStyle, lines: Sequence[Line]) -> str:
    if len(lines) == 1:
        last = text(f"{style.form(lines[0].points[-1].y)} {style.y}".strip())
        names = tag("span", f"last {last}", class_="last")
    else:
        names = tag(
            "span",
            *(tag("span", text(line.name), class_=f"key k{i % 4}") for i, line in enumerate(lines)),
        )
    return tag("figcaption", tag("strong", text(style.title)), names)


def _summary(style: ChartStyle, line: Line) -> str:
    """Describe a curve for screen readers."""
    first, last = line.points[0], line.points[-1]
    ys = [point.y for point in line.points]
    name = f"{line.name}: " if line.name else ""
    return (
        f"{name}{style.form(first.y)} at {style.x} {first.x:.4g}, {style.form(last.y)} at "
        f"{style.x} {last.x:.4g}; between {style.form(min(ys))} and {style.form(max(ys))}."
    )


# ------------------------------------------------------------------------------------------- shapes


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + axis.position(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(axis: Axis, value: float) -> float:
    return round(HEIGHT - BOTTOM - axis.position(value) * (HEIGHT - TOP - BOTTOM), 1)


def _label(x: float, y: float, content: str, anchor: str, **more: object) -> str:
    return tag("text", text(content), x=x, y=y, text_anchor=anchor, **more)


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"></line>'


def _grid(style: ChartStyle, x_axis: Axis, y_axis: Axis) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value, label in y_axis.ticks:
        y = _y(y_axis, value)
        parts += [_rule(LEFT, y, right, y, "rule"), _label(LEFT - 8, y + 4, label, "end")]
    for value, label in x_axis.ticks:
        x = _x(x_axis, value)
        parts += [_rule(x, bottom, x, bottom + 4, "tick"), _label(x, bottom + 17, label, "middle")]
    middle = (LEFT + right) / 2
    parts.append(_label(middle, HEIGHT - 6, style.x, "middle", class_="name"))
    if style.y:
        turned = f"rotate(-90 12 {(TOP + bottom) / 2})"
        at = (TOP + bottom) / 2
        parts.append(_label(12, at, style.y, "middle", class_="name", transform=turned))
    return parts


def _level(style: ChartStyle, x_axis: Axis, y_axis: Axis) -> list[str]:
    if style.level is None:
        return []
    name, value = style.level
    y = _y(y_axis, value)
    label = _label(WIDTH - RIGHT, y - 5, f"{name} {style.form(value)}", "end", class_="level")
    return [_rule(LEFT, y, WIDTH - RIGHT, y, "level"), label]


def _line(style: ChartStyle, line: Line, number: int, x_axis: Axis, y_axis: Axis) -> list[str]:
    kind = f"k{number % 4}"
    points = _bucketed(line.points)
    at = [f"{_x(x_axis, p.x)},{_y(y_axis, p.y)}" for p in points]
    parts = []
    if len(line.points) > len(points):
        edge = [f"{_x(x_axis, p.x)},{_y(y_axis, p.high)}" for p in points]
        edge += [f"{_x(x_axis, p.x)},{_y(y_axis, p.low)}" for p in reversed(points)]
        parts.append(f'<polygon class="band {kind}" points="{" ".join(edge)}"></polygon>')
    parts.append(f'<polyline class="{kind}" points="{" ".join(at)}"></polyline>')
    marked = points if len(points) <= MARKED else points[-1:]
    for point in marked:
        tooltip = f"{line.name} {style.form(point.y)} at {style.x} {point.x:.4g}".strip()
        position = {"cx": _x(x_axis, point.x), "cy": _y(y_axis, point.y), "r": 2.6}
        parts.append(tag("circle", tag("title", text(tooltip)), class_=kind, **position))
    return parts


def _bucketed(points: Sequence[Point]) -> list[Bucket]:
    count = len(points) if len(points) <= MOST_POINTS else BUCKETS
    cuts = [len(points) * i // count for i in range(count + 1)]
    return [_bucket(points[a:b]) for a, b in itertools.pairwise(cuts)]


def _bucket(points: Sequence[Point]) -> Bucket:
    ys = [point.y for point in points]
    middle = sum(point.x for point in points) / len(points)
    return Bucket(middle, sum(ys) / len(ys), min(ys), max(ys))
