"""A batch as pictures on a sheet: single views, and grids put together again from their cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from patchmill.loaders.preview.boxes import WHITE, Box
from patchmill.loaders.preview.text import Rgb, drawn
from patchmill.loaders.recipe import Grid, Recipe, Spread, Views

if TYPE_CHECKING:
    from patchmill.loaders.batch import Geometry, ViewBatch

COLOURS: tuple[Rgb, ...] = (
    (208, 74, 2),
    (9, 105, 218),
    (26, 127, 55),
    (130, 80, 223),
    (191, 57, 137),
    (140, 100, 0),
)

_LARGEST = 256  # larger views are shown smaller
_SIDES = ((4, 200), (8, 128), (40, 96))  # up to so many small views are enlarged to about that side
_LEAST_SIDE = 64


@dataclass(frozen=True)
class Picture:
    """A view, or a grid of views, with what its caption says."""

    image: Image.Image
    box: Box
    words: list[str]


def colour_of(recipe: Recipe, group: Views) -> Rgb:
    return COLOURS[recipe.views.index(group) % len(COLOURS)]


def grid_of(group: Views) -> tuple[int, int]:
    crop = group.crop
    return (crop.rows, crop.columns) if isinstance(crop, Grid | Spread) else (1, 1)


def zoom_of(recipe: Recipe) -> float:
    """How much larger than they are all views are shown: a whole number, or less than 1."""
    largest = max(group.size * max(grid_of(group)) for group in recipe.views)
    if largest > _LARGEST:
        return _LARGEST / largest
    most = max(group.count for group in recipe.views)
    side = next((side for count, side in _SIDES if most <= count), _LEAST_SIDE)
    return max(1, side // largest)


def shown_size(group: Views, zoom: float) -> tuple[int, int]:
    """Width and height of the group's pictures on the sheet."""
    (rows, columns), (side, gap) = grid_of(group), _cell(group, zoom)
    return columns * (side + gap) - gap, rows * (side + gap) - gap


def _cell(group: Views, zoom: float) -> tuple[int, int]:
    """Side of a shown view, and the gap between the cells of a grid."""
    side = max(1, round(group.size * zoom))
    return side, (3 if side >= 16 else 1)


def pictures(batch: ViewBatch, recipe: Recipe, zoom: float) -> list[list[Picture]]:
    """Of a batch of one sample, rendered as uint8: the pictures of each group."""
    found, start = [], 0
    for group in recipe.views:
        rows = batch.rows[0, start : start + group.total]
        views = batch.views[group.name][0].permute(0, 2, 3, 1).numpy()
        boxes = _boxes(batch.geometry[group.name], group, colour_of(recipe, group))
        cells = group.total // group.count
        found.append(
            [
                Picture(_put_together(views[at], group, zoom), box, drawn(rows[at]))
                for box, at in zip(boxes, _slices(group.total, cells), strict=True)
            ]
        )
        start += group.total
    return found


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(at, at + step) for at in range(0, total, step))


def _boxes(geometry: Geometry, group: Views, colour: Rgb) -> list[Box]:
    corners = geometry.box[0].numpy().reshape(group.count, -1, 4)
    low, high = corners[..., :2].min(1), corners[..., 2:].max(1)
    flips = geometry.flip[0].numpy().reshape(group.count, -1)[:, 0]
    turns = geometry.turns[0].numpy().reshape(group.count, -1)[:, 0]
    return [
        Box((*low[i], *high[i]), i + 1, colour, bool(flips[i]), int(turns[i]), grid_of(group))
        for i in range(group.count)
    ]


def _put_together(views: np.ndarray, group: Views, zoom: float) -> Image.Image:
    """The cells of a grid or a spread, with gaps between them; or the one view that there is."""
    columns, (side, gap) = grid_of(group)[1], _cell(group, zoom)
    picture = Image.new("RGB", shown_size(group, zoom), WHITE)
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    for i, view in enumerate(views):
        at = i % columns * (side + gap), i // columns * (side + gap)
        picture.paste(Image.fromarray(view).resize((side, side), how), at)
    return picture
