"""Draw a batch as tiles: a tile is a single view, or a grid assembled from its cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from patchmill.loaders.preview.boxes import WHITE, Box
from patchmill.loaders.preview.text import Happened, Rgb, describe_draws
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

_MAX_SIDE = 256  # larger views are reduced to this
_SIDES = ((4, 200), (8, 128), (40, 96))  # (views, side): enlarge up to this many small views to it
_MIN_SIDE = 64


@dataclass(frozen=True)
class Tile:
    """A view, or a grid of views, with the parts of its caption."""

    image: Image.Image
    box: Box
    words: list[str]


def group_colour(recipe: Recipe, group: Views) -> Rgb:
    return COLOURS[recipe.views.index(group) % len(COLOURS)]


def grid_shape(group: Views) -> tuple[int, int]:
    crop = group.crop
    return (crop.rows, crop.columns) if isinstance(crop, Grid | Spread) else (1, 1)


def zoom_factor(recipe: Recipe) -> float:
    """Scale factor of all views on the sheet: a whole number, or less than 1."""
    largest = max(group.size * max(grid_shape(group)) for group in recipe.views)
    if largest > _MAX_SIDE:
        return _MAX_SIDE / largest
    most = max(group.count for group in recipe.views)
    side = next((side for count, side in _SIDES if most <= count), _MIN_SIDE)
    return max(1, side // largest)


def tile_size(group: Views, zoom: float) -> tuple[int, int]:
    """Width and height of the group's tiles."""
    (rows, columns), (side, gap) = grid_shape(group), _cell_size(group, zoom)
    return columns * (side + gap) - gap, rows * (side + gap) - gap


def _cell_size(group: Views, zoom: float) -> tuple[int, int]:
    """Side of a view on the sheet, and the gap between cells of a grid."""
    side = max(1, round(group.size * zoom))
    return side, (3 if side >= 16 else 1)


def view_tiles(
    batch: ViewBatch, recipe: Recipe, zoom: float, extra: Mapping[str, Happened]
) -> list[list[Tile]]:
    """Draw the tiles of each group of a batch, which holds one sample rendered as uint8.

    `extra` has the operations of each group, and the views they were applied to.
    """
    groups, start = [], 0
    for group in recipe.views:
        rows = batch.rows[0, start : start + group.total]
        views = batch.views[group.name][0].permute(0, 2, 3, 1).numpy()
        boxes = _boxes(batch.geometry[group.name], group, group_colour(recipe, group))
        cells = group.total // group.count
        tiles = []
        for box, at in zip(boxes, _slices(group.total, cells), strict=True):
            happened = [(kind, views_of_it[at]) for kind, views_of_it in extra.get(group.name, ())]
            words = describe_draws(rows[at], happened)
            tiles.append(Tile(_assemble(views[at], group, zoom), box, words))
        groups.append(tiles)
        start += group.total
    return groups


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(at, at + step) for at in range(0, total, step))


def _boxes(geometry: Geometry, group: Views, colour: Rgb) -> list[Box]:
    corners = geometry.box[0].numpy().reshape(group.count, -1, 4)
    low, high = corners[..., :2].min(1), corners[..., 2:].max(1)
    flips = geometry.flip[0].numpy().reshape(group.count, -1)[:, 0]
    turns = geometry.turns[0].numpy().reshape(group.count, -1)[:, 0]
    return [
        Box((*low[i], *high[i]), i + 1, colour, bool(flips[i]), int(turns[i]), grid_shape(group))
        for i in range(group.count)
    ]


def _assemble(views: np.ndarray, group: Views, zoom: float) -> Image.Image:
    """Assemble the cells of a grid or a spread, with gaps between them; or draw a single view."""
    columns, (side, gap) = grid_shape(group)[1], _cell_size(group, zoom)
    tile = Image.new("RGB", tile_size(group, zoom), WHITE)
    resampling = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    for i, view in enumerate(views):
        at = i % columns * (side + gap), i // columns * (side + gap)
        tile.paste(Image.fromarray(view).resize((side, side), resampling), at)
    return tile
