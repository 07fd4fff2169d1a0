"""Draw the panel that shows an original image and the box of every view."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from patchmill.loaders.preview.text import Rgb, font, text_width

Corners = tuple[float, float, float, float]  # left, top, right, bottom

PANEL, OUTSIDE, WHITE = (240, 242, 244), (24, 26, 28), (255, 255, 255)

_MANY_BOXES = 12  # more than these are drawn with thin lines
_OVERSAMPLE = 4  # lines are drawn larger by this factor, then reduced, for antialiasing
_NUMBER_SIZE = 11.0
_DASH, _GAP = 7.0, 5.0
_MARK_HALF = 5.0  # half the length of the mark on the side that is up


@dataclass(frozen=True)
class Box:
    """The box of a view, or of a grid of rows x columns views, in its image."""

    corners: Corners  # in source pixels
    number: int
    colour: Rgb
    flip: bool = False
    turns: int = 0
    grid: tuple[int, int] = (1, 1)


def draw_boxes(image: np.ndarray, boxes: Sequence[Box], size: tuple[int, int]) -> Image.Image:
    """Draw an image and its boxes into a panel of `size`; views may reach beyond the image."""
    height, width, _ = image.shape
    corners = np.array([(0, 0, width, height), *(box.corners for box in boxes)], float)
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    scale = min(size / (high - low))
    shift = (size - (high - low) * scale) / 2 - low * scale
    corners = corners * scale + [*shift, *shift]

    panel = Image.new("RGB", size, PANEL)
    panel.paste(OUTSIDE, _pixels(np.r_[corners[:, :2].min(0), corners[:, 2:].max(0)]))
    left, top, right, bottom = _pixels(corners[0])
    shown = Image.fromarray(image).resize((right - left, bottom - top), Image.Resampling.LANCZOS)
    panel.paste(shown, (left, top))
    fitted = [replace(b, corners=tuple(c)) for b, c in zip(boxes, corners[1:], strict=True)]
    panel.paste(*_overlay(fitted, size, numbers=True))
    return panel


def _pixels(corners: np.ndarray) -> tuple[int, int, int, int]:
    """Round to pixels, with a width and height of at least 1."""
    left, top, right, bottom = (round(c) for c in corners)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def legend_box(colour: Rgb, flip: bool = False, turns: int = 0) -> Image.Image:
    """A small box for the legend."""
    image = Image.new("RGB", (30, 16), WHITE)
    image.paste(*_overlay([Box((0, 0, 30, 16), 0, colour, flip, turns)], image.size, numbers=False))
    return image


def _overlay(
    boxes: Sequence[Box], size: tuple[int, int], numbers: bool
) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """Draw boxes, large ones first, then numbers; return arguments for `Image.paste`."""
    fine = Image.new("RGBA", (size[0] * _OVERSAMPLE, size[1] * _OVERSAMPLE))
    pen = ImageDraw.Draw(fine)
    for box in sorted(boxes, key=_area, reverse=True):
        _outline(pen, box, 2.0 if len(boxes) <= _MANY_BOXES else 1.0)
    boxes, occupied = sorted(boxes, key=_area), _Occupied(size)
    _draw_up_marks(pen, boxes, occupied)
    if numbers:
        _draw_numbers(pen, boxes, occupied)
    drawing = fine.resize(size, Image.Resampling.BOX)
    return drawing.convert("RGB"), (0, 0), drawing.getchannel("A")


def _area(box: Box) -> float:
    left, top, right, bottom = box.corners
    return (right - left) * (bottom - top)


# ------------------------------------------------------------------------------------------- lines


def _outline(pen: ImageDraw.ImageDraw, box: Box, thick: float) -> None:
    """Draw the box's sides, dashed if the view is flipped, and the lines of its grid."""
    for cut in _grid_lines(box):
        _line(pen, cut, box.colour, 1.0)
    sides = _side_lines(box.corners, thick / 2)
    for side in sides:
        _line(pen, side, WHITE, thick + (1.2 if thick > 1 else 0.8))
    for side in sides:
        for dash in _dashes(*side) if box.flip else [side]:
            _line(pen, dash, box.colour, thick)


def _line(pen: ImageDraw.ImageDraw, ends: Corners, colour: Rgb, thick: float) -> None:
    """Draw a horizontal or vertical line with square ends."""
    left, top, right, bottom = ends
    half = thick / 2
    rectangle = left - half, top - half, right + half, bottom + half
    pen.rectangle([round(c * _OVERSAMPLE) for c in rectangle], (*colour, 255))


def _side_lines(corners: Corners, inset: float) -> list[Corners]:
    left, top, right, bottom = corners
    left, top = left + inset, top + inset
    right, bottom = max(left, right - inset), max(top, bottom - inset)
    return [
        (left, top, right, top),
        (right, top, right, bottom),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
    ]


def _dashes(x1: float, y1: float, x2: float, y2: float) -> Iterator[Corners]:
    """Split a side into dashes, with one at each end."""
    length = max(abs(x2 - x1), abs(y2 - y1))
    if length == 0:
        return
    periods = max(1, round((length - _DASH) / (_DASH + _GAP)))
    period = (length - _DASH) / periods
    for start in (max(0.0, period * i) for i in range(periods + 1)):
        a, b = start / length, min(1.0, (start + _DASH) / length)
        yield x1 + a * (x2 - x1), y1 + a * (y2 - y1), x1 + b * (x2 - x1), y1 + b * (y2 - y1)


def _grid_lines(box: Box) -> Iterator[Corners]:
    """The lines between the cells of a grid."""
    (rows, columns), (left, top, right, bottom) = box.grid, box.corners
    for i in range(1, columns):
        x = left + (right - left) * i / columns
        yield x, top, x, bottom
    for i in range(1, rows):
        y = top + (bottom - top) * i / rows
        yield left, y, right, y


# ------------------------------------------------------------------------------- marks and numbers


class _Occupied:
    """Areas of marks and numbers, so that none covers another."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size, self._areas = size, list[Corners]()

    def place(self, candidates: Iterable[Corners]) -> Corners | None:
        """Occupy and return the first free candidate; None if there is none."""
        for area in candidates:
            if self._is_inside(area) and not any(_overlap(area, other) for other in self._areas):
                self._areas.append(area)
                return area
        return None

    def _is_inside(self, area: Corners) -> bool:
        return min(area) >= 0 and area[2] <= self._size[0] and area[3] <= self._size[1]


def _overlap(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] + 1 and b[0] < a[2] + 1 and a[1] < b[3] + 1 and b[1] < a[3] + 1


def _draw_up_marks(pen: ImageDraw.ImageDraw, boxes: Sequence[Box], occupied: _Occupied) -> None:
    """Draw an outward triangle inside the side that is up in the view."""
    for box in boxes:
        if not box.turns:
            continue
        side = up_side(box.flip, box.turns)
        places = list(_mark_positions(box.corners, side))
        left, top, right, bottom = occupied.place(places) or places[0]
        x, y = (left + right) / 2, (top + bottom) / 2
        dx, dy = ((0, -1), (1, 0), (0, 1), (-1, 0))[side]
        for colour, half in ((WHITE, _MARK_HALF + 1.7), (box.colour, _MARK_HALF)):
            tip, base = (x + dx * half, y + dy * half), (x - dx * half, y - dy * half)
            wide = half * 1.15
            points = [
                tip,
                (base[0] + dy * wide, base[1] + dx * wide),
                (base[0] - dy * wide, base[1] - dx * wide),
            ]
            pen.polygon([(a * _OVERSAMPLE, b * _OVERSAMPLE) for a, b in points], (*colour, 255))


def up_side(flip: bool, turns: int) -> int:
    """The side of the box that is up in the view: 0 top, 1 right, 2 bottom, 3 left.

    A counter-clockwise turn moves the right side up; in a flipped view, the left one.
    """
    return -turns % 4 if flip else turns


def _mark_positions(corners: Corners, side: int) -> Iterator[Corners]:
    """Yield candidates for a mark inside a side, its middle first."""
    left, top, right, bottom = corners
    for share in (0.5, 0.35, 0.65, 0.2, 0.8):
        x, y = [
            (left + share * (right - left), top + _MARK_HALF),
            (right - _MARK_HALF, top + share * (bottom - top)),
            (left + share * (right - left), bottom - _MARK_HALF),
            (left + _MARK_HALF, top + share * (bottom - top)),
        ][side]
        yield x - _MARK_HALF, y - _MARK_HALF, x + _MARK_HALF, y + _MARK_HALF


def _draw_numbers(pen: ImageDraw.ImageDraw, boxes: Sequence[Box], occupied: _Occupied) -> None:
    """Draw each box's number in one of its corners, or elsewhere inside it if there is space."""
    for box in boxes:
        place = occupied.place(_badge_positions(box.corners, *_badge_size(box.number)))
        if place:
            _draw_number(pen, box, place)


def _badge_positions(corners: Corners, wide: float, tall: float) -> Iterator[Corners]:
    """Yield candidates for a badge: the box's corners, then its sides, then its inside."""
    left, top, right, bottom = corners
    right, bottom = max(left, right - wide), max(top, bottom - tall)
    xs, ys = np.arange(left, right, 5.0), np.arange(top, bottom, 5.0)
    for x, y in itertools.chain(
        itertools.product((left, right), (top, bottom)),
        itertools.product(xs, (top, bottom)),
        itertools.product((left, right), ys),
        itertools.product(xs, ys),
    ):
        yield x, y, x + wide, y + tall


def number_badge(number: int, colour: Rgb) -> Image.Image:
    """A number on a rounded rectangle, with transparent corners."""
    wide, tall = (round(side) for side in _badge_size(number))
    fine = Image.new("RGBA", (wide * _OVERSAMPLE, tall * _OVERSAMPLE), (*colour, 0))
    box = Box((0, 0, 0, 0), number, colour)
    _draw_number(ImageDraw.Draw(fine), box, (0, 0, wide - 1 / _OVERSAMPLE, tall - 1 / _OVERSAMPLE))
    return fine.resize((wide, tall), Image.Resampling.BOX)


def _badge_size(number: int) -> tuple[float, float]:
    height = 1.45 * _NUMBER_SIZE
    return max(text_width(str(number), _NUMBER_SIZE) + 0.7 * _NUMBER_SIZE, height), height


def _draw_number(pen: ImageDraw.ImageDraw, box: Box, place: Corners) -> None:
    left, top, right, bottom = (round(c * _OVERSAMPLE) for c in place)
    pen.rounded_rectangle((left, top, right, bottom), (bottom - top) * 0.3, (*box.colour, 255))
    middle = (left + right) / 2, (top + bottom) / 2
    pen.text(middle, str(box.number), WHITE, font(_NUMBER_SIZE * _OVERSAMPLE), anchor="mm")
