"""The original of a contact sheet: the image, fitted into a panel, with the box of every view."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from patchmill.loaders.preview.text import Rgb, font, width

Corners = tuple[float, float, float, float]  # left, top, right, bottom

PANEL, OUTSIDE, WHITE = (240, 242, 244), (24, 26, 28), (255, 255, 255)

_FEW = 12  # so many boxes are drawn with thick lines
_FINE = 4  # lines are drawn that many times larger, for smooth edges
_NUMBER = 11.0
_DASH, _GAP = 7.0, 5.0
_UP = 5.0  # half the length of the mark on the side that is up


@dataclass(frozen=True)
class Box:
    """Where a view, or a grid of rows x columns views, lies in its image."""

    corners: Corners  # in source pixels
    number: int
    colour: Rgb
    flip: bool = False
    turns: int = 0
    grid: tuple[int, int] = (1, 1)


def with_boxes(image: np.ndarray, boxes: Sequence[Box], size: tuple[int, int]) -> Image.Image:
    """The image with its boxes in a panel of `size`; what views show beyond the image is black."""
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
    panel.paste(*_drawing(fitted, size, numbers=True))
    return panel


def _pixels(corners: np.ndarray) -> tuple[int, int, int, int]:
    """Whole pixels, at least one of them."""
    left, top, right, bottom = (round(c) for c in corners)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def sign(colour: Rgb, flip: bool = False, turns: int = 0) -> Image.Image:
    """A small box, for a legend."""
    image = Image.new("RGB", (30, 16), WHITE)
    image.paste(*_drawing([Box((0, 0, 30, 16), 0, colour, flip, turns)], image.size, numbers=False))
    return image


def _drawing(
    boxes: Sequence[Box], size: tuple[int, int], numbers: bool
) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """The boxes on a transparent ground: large ones below, numbers above all."""
    fine = Image.new("RGBA", (size[0] * _FINE, size[1] * _FINE))
    pen = ImageDraw.Draw(fine)
    for box in sorted(boxes, key=_area, reverse=True):
        _outline(pen, box, 2.0 if len(boxes) <= _FEW else 1.0)
    boxes, taken = sorted(boxes, key=_area), _Taken(size)
    _marks(pen, boxes, taken)
    if numbers:
        _numbers(pen, boxes, taken)
    drawing = fine.resize(size, Image.Resampling.BOX)
    return drawing.convert("RGB"), (0, 0), drawing.getchannel("A")


def _area(box: Box) -> float:
    left, top, right, bottom = box.corners
    return (right - left) * (bottom - top)


# ------------------------------------------------------------------------------------------- lines


def _outline(pen: ImageDraw.ImageDraw, box: Box, thick: float) -> None:
    """The box's sides, dashed where the view is flipped."""
    for cut in _cuts(box):
        _line(pen, cut, box.colour, 1.0)
    sides = _sides(box.corners, thick / 2)
    for side in sides:
        _line(pen, side, WHITE, thick + (1.2 if thick > 1 else 0.8))
    for side in sides:
        for dash in _dashes(*side) if box.flip else [side]:
            _line(pen, dash, box.colour, thick)


def _line(pen: ImageDraw.ImageDraw, ends: Corners, colour: Rgb, thick: float) -> None:
    """A level or upright line with square ends."""
    left, top, right, bottom = ends
    half = thick / 2
    ground = left - half, top - half, right + half, bottom + half
    pen.rectangle([round(c * _FINE) for c in ground], (*colour, 255))


def _sides(corners: Corners, inset: float) -> list[Corners]:
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
    """The side cut into dashes, beginning and ending with one."""
    length = max(abs(x2 - x1), abs(y2 - y1))
    if length == 0:
        return
    periods = max(1, round((length - _DASH) / (_DASH + _GAP)))
    period = (length - _DASH) / periods
    for start in (max(0.0, period * i) for i in range(periods + 1)):
        a, b = start / length, min(1.0, (start + _DASH) / length)
        yield x1 + a * (x2 - x1), y1 + a * (y2 - y1), x1 + b * (x2 - x1), y1 + b * (y2 - y1)


def _cuts(box: Box) -> Iterator[Corners]:
    """The lines between a grid's cells."""
    (rows, columns), (left, top, right, bottom) = box.grid, box.corners
    for i in range(1, columns):
        x = left + (right - left) * i / columns
        yield x, top, x, bottom
    for i in range(1, rows):
        y = top + (bottom - top) * i / rows
        yield left, y, right, y


# ------------------------------------------------------------------------------- marks and numbers


class _Taken:
    """Where marks and numbers are, so that none hides another."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size, self._places = size, list[Corners]()

    def take(self, places: Iterable[Corners]) -> Corners | None:
        """The first place that is free, if any is."""
        for place in places:
            if self._within(place) and not any(_meet(place, other) for other in self._places):
                self._places.append(place)
                return place
        return None

    def _within(self, place: Corners) -> bool:
        return min(place) >= 0 and place[2] <= self._size[0] and place[3] <= self._size[1]


def _meet(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] + 1 and b[0] < a[2] + 1 and a[1] < b[3] + 1 and b[1] < a[3] + 1


def _marks(pen: ImageDraw.ImageDraw, boxes: Sequence[Box], taken: _Taken) -> None:
    """A triangle within the side that has become its view's upper one, pointing outwards."""
    for box in boxes:
        if not box.turns:
            continue
        side = up_side(box.flip, box.turns)
        places = list(_along(box.corners, side))
        left, top, right, bottom = taken.take(places) or places[0]
        x, y = (left + right) / 2, (top + bottom) / 2
        dx, dy = ((0, -1), (1, 0), (0, 1), (-1, 0))[side]
        for colour, half in ((WHITE, _UP + 1.7), (box.colour, _UP)):
            tip, base = (x + dx * half, y + dy * half), (x - dx * half, y - dy * half)
            wide = half * 1.15
            points = [
                tip,
                (base[0] + dy * wide, base[1] + dx * wide),
                (base[0] - dy * wide, base[1] - dx * wide),
            ]
            pen.polygon([(a * _FINE, b * _FINE) for a, b in points], (*colour, 255))


def up_side(flip: bool, turns: int) -> int:
    """Which side of its box is up in the view: 0 the top, 1 the right, 2 the bottom, 3 the left.

    Counter-clockwise turns bring up the right side first; of a flipped view, that was the left one.
    """
    return -turns % 4 if flip else turns


def _along(corners: Corners, side: int) -> Iterator[Corners]:
    """Places for a mark within the top, right, bottom or left side: its middle first."""
    left, top, right, bottom = corners
    for share in (0.5, 0.35, 0.65, 0.2, 0.8):
        x, y = [
            (left + share * (right - left), top + _UP),
            (right - _UP, top + share * (bottom - top)),
            (left + share * (right - left), bottom - _UP),
            (left + _UP, top + share * (bottom - top)),
        ][side]
        yield x - _UP, y - _UP, x + _UP, y + _UP


def _numbers(pen: ImageDraw.ImageDraw, boxes: Sequence[Box], taken: _Taken) -> None:
    """Each box's number in one of its corners, or elsewhere in it, where there is room."""
    for box in boxes:
        place = taken.take(_corners_first(box.corners, *_badge_size(box.number)))
        if place:
            _number(pen, box, place)


def _corners_first(corners: Corners, wide: float, tall: float) -> Iterator[Corners]:
    """Places for a badge: the box's corners, then its sides, then its inside."""
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


def badge(number: int, colour: Rgb) -> Image.Image:
    """A number on a rounded ground, with transparent corners."""
    wide, tall = (round(side) for side in _badge_size(number))
    fine = Image.new("RGBA", (wide * _FINE, tall * _FINE), (*colour, 0))
    box = Box((0, 0, 0, 0), number, colour)
    _number(ImageDraw.Draw(fine), box, (0, 0, wide - 1 / _FINE, tall - 1 / _FINE))
    return fine.resize((wide, tall), Image.Resampling.BOX)


def _badge_size(number: int) -> tuple[float, float]:
    return max(width(str(number), _NUMBER) + 0.7 * _NUMBER, 1.45 * _NUMBER), 1.45 * _NUMBER


def _number(pen: ImageDraw.ImageDraw, box: Box, place: Corners) -> None:
    left, top, right, bottom = (round(c * _FINE) for c in place)
    pen.rounded_rectangle((left, top, right, bottom), (bottom - top) * 0.3, (*box.colour, 255))
    middle = (left + right) / 2, (top + bottom) / 2
    pen.text(middle, str(box.number), WHITE, font(_NUMBER * _FINE), anchor="mm")
