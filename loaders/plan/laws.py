"""Compile a recipe to a law table for Numba: one LAW per view, with the distributions to draw from.

Settings become numbers: strengths become ranges, ratios logarithms, and every view gets its own
probabilities.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from patchmill.kernels.views.decisions import (
    GREY_FIRST,
    GREY_LAST,
    ON_GREY,
    ON_IMAGE,
    ON_TEXTURE,
    Target,
)
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Recipe,
    Shift,
    Spread,
    Views,
    Window,
    chance_of,
)

CROP, WINDOW, SHIFT, FIXED, SQUARE = range(5)
AUTO_RADIUS = -1  # of a blur whose taps extend to three sigma
PASTE_SIDE = 500  # longer side, in pixels, of the image that a mask's blur refers to
BACKGROUND_KINDS = {"grey": ON_GREY, "texture": ON_TEXTURE, "images": ON_IMAGE}

LAW = np.dtype(
    [
        ("kind", "i4"),
        ("lead", "i4"),  # index of the view that draws the placement: itself, or cell 0 of its grid
        ("cell_y", "i4"),  # offset of the cell in the view that its grid cuts, in output pixels
        ("cell_x", "i4"),
        ("last_x", "i4"),  # offset of the grid's rightmost column
        ("view_h", "i4"),  # size of the view, or of the view that a grid cuts into cells
        ("view_w", "i4"),
        ("short_side", "i4"),
        ("pad", "i4"),
        ("at_y", "f8"),  # of FIXED and SQUARE: position, as a fraction of the free space
        ("at_x", "f8"),
        ("anchors", "i4"),  # number of views, from the first, that the crop must overlap
        ("overlap", "f8"),  # smallest overlap, as a share of the image's area
        ("area", "f8", 2),  # range of the crop's area, as a share of the image's
        ("ratio", "f8", 2),
        ("log_ratio", "f8", 2),
        ("flip", "f8"),  # probability, like the fields down to mask_blur
        ("jitter", "f8"),
        ("grey", "f8"),
        ("blur", "f8"),
        ("solarise", "f8"),
        ("paste", "f8"),
        ("mask_blur", "f8"),
        ("brightness", "f8", 2),  # range, like the fields down to sigma
        ("contrast", "f8", 2),
        ("saturation", "f8", 2),
        ("hue", "f8", 2),
        ("sigma", "f8", 2),
        ("mask_sigma", "f8"),  # of the mask's blur, for an image whose longer side is PASTE_SIDE
        ("radius", "i4"),  # taps of the blur on either side, or AUTO_RADIUS
        ("turns", "i4"),  # 1 to draw a number of quarter turns
        ("grey_when", "i4"),  # GREY_FIRST or GREY_LAST
        ("background", "i4"),  # of a paste: ON_GREY, ON_TEXTURE or ON_IMAGE
    ],
    align=True,
)


@functools.lru_cache(maxsize=256)
def law_table(recipe: Recipe) -> np.ndarray:
    """The recipe's read-only law table, LAW [V], with views in the order of a batch."""
    table = np.zeros(recipe.total, LAW)
    start = 0
    for group in recipe.views:
        _fill(table[start : start + group.total], group, start)
        anchored = table[start : start + group.total]
        anchored["anchors"] = np.minimum(anchored["lead"], recipe.views[0].total)
        start += group.total
    table["anchors"][table["overlap"] == 0] = 0
    table.flags.writeable = False
    return table


def targets(recipe: Recipe) -> tuple[Target, ...]:
    """The output tensors of a batch, one per view group, in recipe order."""
    return tuple(
        Target(v.name, v.total, v.size, v.interpolation == "bicubic", v.mean, v.std)
        for v in recipe.views
    )


def _fill(table: np.ndarray, group: Views, start: int) -> None:
    crop = group.crop
    if isinstance(crop, Spread):
        _fill_spread(table, crop)
    rows, columns = (crop.rows, crop.columns) if isinstance(crop, Grid) else (1, 1)
    cells = rows * columns
    cell = np.arange(len(table)) % cells
    table["lead"] = start + np.arange(len(table)) - cell
    table["cell_y"] = cell // columns * group.size
    table["cell_x"] = cell % columns * group.size
    table["last_x"] = (columns - 1) * group.size
    table["view_h"], table["view_w"] = rows * group.size, columns * group.size
    table["turns"] = group.turns
    _fill_crop(table, crop.of if isinstance(crop, Grid) else crop)
    each = len(table) // group.count
    for view in range(group.count):
        law = table[view * each : (view + 1) * each]
        law["flip"] = chance_of(group.flip, view)
        law["solarise"] = chance_of(group.solarise, view)
        _fill_colour(law, group.colour or Colour(p=0.0, grey=0.0), view)
        _fill_blur(law, group.blur or Blur(p=0.0), view)
        _fill_paste(law, group.paste or CopyPaste(p=0.0), view)


def _fill_crop(law: np.ndarray, crop: Any) -> None:
    if isinstance(crop, Crop):
        law["kind"] = CROP
        law["area"], law["ratio"] = crop.scale, crop.ratio
        law["log_ratio"] = [math.log(r) for r in crop.ratio]
        law["overlap"] = crop.min_overlap
    elif isinstance(crop, Window):
        law["kind"], law["short_side"] = WINDOW, crop.short_side
    elif isinstance(crop, Shift):
        law["kind"], law["pad"] = SHIFT, crop.pad
    elif isinstance(crop, Centre):
        law["kind"], law["short_side"] = FIXED, crop.short_side
        law["at_y"] = law["at_x"] = 0.5


def _fill_spread(law: np.ndarray, crop: Spread) -> None:
    law["kind"] = SQUARE if crop.short_side is None else FIXED
    law["short_side"], law["area"] = crop.short_side or 0, crop.area
    row, column = np.divmod(np.arange(len(law)) % (crop.rows * crop.columns), crop.columns)
    law["at_y"] = row / (crop.rows - 1) if crop.rows > 1 else 0.5
    law["at_x"] = column / (crop.columns - 1) if crop.columns > 1 else 0.5


def _fill_colour(law: np.ndarray, colour: Colour, view: int) -> None:
    for name in ("brightness", "contrast", "saturation"):
        strength = getattr(colour, name)
        law[name] = max(0.0, 1 - strength), 1 + strength
    law["hue"] = -colour.hue, colour.hue
    jitters = colour.brightness or colour.contrast or colour.saturation or colour.hue
    law["jitter"] = chance_of(colour.p, view) if jitters else 0.0
    law["grey"] = chance_of(colour.grey, view)
    law["grey_when"] = GREY_FIRST if colour.grey_first else GREY_LAST


def _fill_blur(law: np.ndarray, blur: Blur, view: int) -> None:
    law["blur"] = chance_of(blur.p, view)
    law["sigma"] = blur.sigma
    law["radius"] = AUTO_RADIUS if blur.kernel is None else blur.kernel // 2


def _fill_paste(law: np.ndarray, paste: CopyPaste, view: int) -> None:
    law["paste"] = chance_of(paste.p, view)
    law["background"] = BACKGROUND_KINDS[paste.background]
    law["mask_blur"], law["mask_sigma"] = paste.blur_p, paste.blur_sigma
