"""Draw the plan of a batch: every random decision about every view, as decision rows.

A draw is a pure function of (seed, epoch, sample id, view, operation): Philox with the seed as key
and (id low, id high, epoch, view << 16 | operation << 8 | attempt) as counter. It does not depend
on batches, workers, ranks, devices or the order of work. The distributions are torchvision's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit_ieee, jit_inline
from patchmill.kernels.views.decisions import GREY_NEVER, NO_JITTER, ON_GREY, PASTE_NEVER, ROW
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.plan import philox
from patchmill.loaders.plan.laws import (
    AUTO_RADIUS,
    CROP,
    PASTE_SIDE,
    SHIFT,
    SQUARE,
    WINDOW,
    law_table,
    targets,
)
from patchmill.loaders.recipe import Recipe

__all__ = [
    "Plan",
    "background_candidate",
    "background_id",
    "draw",
    "draw_into",
    "draw_slots",
    "law_table",
    "targets",
]

MAX_SIDE = 131_071  # keeps side * short_side within int32

# Operation numbers, part of the counter: changing one changes all of its draws.
_CROP = 0  # to 9: torchvision's ten tries at a crop; the attempt counts redraws for overlap
_CORNER = 10  # corner of a crop whose redraws all failed
_PLACEMENT = 16  # flip, turns, corner of a window
_COLOUR = 17  # whether to jitter, in which order, whether to turn grey
_FACTORS = 18  # brightness, contrast, saturation, hue
_BLUR = 19  # whether to blur, sigma, whether to solarise
_PASTE = 20  # whether to paste, the background's level or seed, whether to blur the mask
_BACKGROUND_POSITION = 21  # position of the image on a background image
_BACKGROUND = 22  # candidate images for the background, the same for all views

Stream = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]

_TRIES = 10
_REDRAWS = 50
_ORDERS = np.array(
    [sum(op << 2 * i for i, op in enumerate(p)) for p in itertools.permutations(range(4))], np.int32
)


@dataclass(frozen=True, eq=False)
class Plan:
    """The decision rows of a batch of images."""

    rows: np.ndarray  # [N, V] of ROW: groups in recipe order, view by view, cells row by row
    recipe: Recipe
    shapes: np.ndarray  # [N, 2] int32: height and width of the images

    def group(self, name: str) -> np.ndarray:
        """The rows [N, count] of one view group."""
        start = 0
        for group in self.recipe.views:
            if group.name == name:
                return self.rows[:, start : start + group.total]
            start += group.total
        raise MillError(f"the recipe {self.recipe.name} has no view group {name!r}")


def draw(
    recipe: Recipe,
    seed: int,
    epoch: int,
    ids: Sequence[int] | np.ndarray,
    shapes: Sequence[tuple[int, int]] | np.ndarray,
) -> Plan:
    """Draw the plan for samples `ids` whose images have these (height, width) shapes."""
    ids, shapes = np.asarray(ids), np.asarray(shapes)
    _check(seed, epoch, ids, shapes)
    table = law_table(recipe)
    rows = np.empty((len(ids), len(table)), ROW)
    shapes = np.ascontiguousarray(shapes.reshape(-1, 2), np.int32)
    for i, (height, width) in enumerate(shapes.tolist()):
        draw_into(table, np.uint64(seed), int(epoch), int(ids[i]), height, width, rows[i])
    return Plan(rows, recipe, shapes)


def _check(seed: int, epoch: int, ids: np.ndarray, shapes: np.ndarray) -> None:
    rules = [
        (0 <= seed < 2**64, f"the seed must be 0 to 2**64 - 1, not {seed}"),
        (0 <= epoch < 2**32, f"the epoch must be 0 to 2**32 - 1, not {epoch}"),
        (ids.ndim == 1, f"sample ids must be a list of numbers, not an array of shape {ids.shape}"),
        (
            shapes.shape == (*ids.shape, 2) or (shapes.size == ids.size == 0),
            f"{ids.size} samples need as many (height, width) shapes, not {shapes.shape} numbers",
        ),
    ]
    for holds, complaint in rules:
        if not holds:
            raise MillError(complaint)
    for name, values, low, high in (
        ("sample ids", ids, 0, 2**62),
        ("the height and width of an image", shapes, 1, MAX_SIDE),
    ):
        integers = values.dtype.kind in "iu"
        for wrong in values[(values < low) | (values > high)] if integers else values.ravel():
            raise MillError(f"{name} must be whole numbers from {low} to {high}, not {wrong}")


@jit_ieee
def draw_into(
    laws: np.ndarray,
    seed: np.uint64,
    epoch: int,
    id: int,
    height: int,
    width: int,
    rows: np.ndarray,
) -> None:
    """Draw the decision rows of one image into `rows` [V]; `laws` is `law_table(recipe)`.

    Checks and allocates nothing. Pass the seed as np.uint64: Numba treats a Python int as signed.
    """
    stream = _stream(np.uint64(seed), np.uint64(epoch), np.int64(id))
    _draw_image(laws, stream, np.int64(height), np.int64(width), rows)


@jit_ieee
def draw_slots(
    laws: np.ndarray,
    seed: np.uint64,
    epoch: int,
    slots: np.ndarray,
    ids: np.ndarray,
    shapes: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Call `draw_into` for some slots of a batch with ids [B], shapes [B, 2] and rows [B, V]."""
    for slot in slots:
        draw_into(laws, seed, epoch, ids[slot], shapes[slot, 0], shapes[slot, 1], rows[slot])


@jit_ieee
def background_candidate(seed: np.uint64, epoch: int, id: int, count: int, attempt: int = 0) -> int:
    """Draw a background candidate for sample `id`, uniformly from the other samples of `count`."""
    stream = _stream(np.uint64(seed), np.uint64(epoch), np.int64(id))
    word, _, _, _ = _words(stream, 0, _BACKGROUND, attempt)
    other = philox.below(word, max(count - 1, 1))
    return other + 1 if id <= other and count > 1 else other


@jit_ieee
def background_id(seed: np.uint64, epoch: int, id: int, count: int) -> int:
    """Draw the background for sample `id` from a data set of `count` backgrounds."""
    stream = _stream(np.uint64(seed), np.uint64(epoch), np.int64(id))
    word, _, _, _ = _words(stream, 0, _BACKGROUND, 0)
    return philox.below(word, count)


# ------------------------------------------------------------------------------------- compiled


@jit_ieee
def _stream(seed: np.uint64, epoch: np.uint64, id: int) -> Stream:
    """The part of counter and key shared by all draws for an image."""
    id_low, id_high = philox.halves(id)
    seed_low, seed_high = philox.halves(seed)
    return id_low, id_high, epoch, seed_low, seed_high


@jit_inline
def _draw_image(
    laws: np.ndarray, stream: Stream, height: int, width: int, rows: np.ndarray
) -> None:
    for view in range(laws.size):
        if laws[view].lead == view:
            _placement(stream, laws[view], view, height, width, rows)
            _paste(stream, laws[view], view, max(height, width), rows[view])
        else:
            _placement_of_cell(laws[view], rows[laws[view].lead], rows[view])
        _colour(stream, laws[view], view, rows[view])
        _blur_and_solarise(stream, laws[view], view, rows[view])


@jit_inline
def _words(stream: Stream, view: int, op: int, attempt: int) -> philox.Words:
    id_low, id_high, epoch, seed_low, seed_high = stream
    draw = np.uint64(view << 16 | op << 8 | attempt)
    return philox.block(id_low, id_high, epoch, draw, seed_low, seed_high)


@jit_inline
def _happens(word: np.uint64, chance: float) -> bool:
    return philox.uniform(word, 0.0, 1.0) < chance


@jit_ieee
def _placement(
    stream: Stream, law: Any, view: int, height: int, width: int, rows: np.ndarray
) -> None:
    """Draw box, virtual resize, window, flip and turns; for a grid, those of its first cell."""
    row = rows[view]
    flip, turns, y, x = _words(stream, view, _PLACEMENT, 0)
    row.flip = _happens(flip, law.flip)
    row.turns = philox.below(turns, 4) if law.turns else 0
    row.fallback = 0
    row.box_y, row.box_x, row.box_h, row.box_w = 0, 0, height, width
    row.full_h, row.full_w = law.view_h, law.view_w
    row.win_y, row.win_x = 0, 0
    if law.kind == CROP:
        _crop(stream, law, view, height, width, rows)
    elif law.kind == SHIFT:
        row.win_y = philox.below(y, 2 * law.pad + 1) - law.pad
        row.win_x = philox.below(x, 2 * law.pad + 1) - law.pad
    elif law.kind == SQUARE:
        side = int(np.rint(math.sqrt(height * width * law.area[0])))
        row.box_h = row.box_w = side = min(max(side, 1), min(height, width))
        row.box_y = int(np.rint((height - side) * law.at_y))
        row.box_x = int(np.rint((width - side) * law.at_x))
    else:
        short = min(height, width)
        row.full_h = law.short_side * height // short
        row.full_w = law.short_side * width // short
        spare_y, spare_x = row.full_h - law.view_h, row.full_w - law.view_w
        if law.kind == WINDOW:
            row.win_y, row.win_x = philox.below(y, spare_y + 1), philox.below(x, spare_x + 1)
        else:
            row.win_y, row.win_x = (
                int(np.rint(spare_y * law.at_y)),
                int(np.rint(spare_x * law.at_x)),
            )
    if row.flip:
        row.win_x += law.last_x


@jit_ieee
def _placement_of_cell(law: Any, lead: Any, row: Any) -> None:
    """Placement of a grid's cell from its first cell `lead`; a flip reverses the columns."""
    row.flip, row.turns, row.fallback = lead.flip, lead.turns, lead.fallback
    row.box_y, row.box_x, row.box_h, row.box_w = lead.box_y, lead.box_x, lead.box_h, lead.box_w
    row.full_h, row.full_w = lead.full_h, lead.full_w
    row.win_y = lead.win_y + law.cell_y
    row.win_x = lead.win_x + (-law.cell_x if lead.flip else law.cell_x)
    row.paste, row.background, row.mask_sigma = lead.paste, lead.background, lead.mask_sigma
    row.background_y, row.background_x = lead.background_y, lead.background_x


@jit_ieee
def _paste(stream: Stream, law: Any, view: int, longer_side: int, row: Any) -> None:
    row.paste, row.background, row.mask_sigma = PASTE_NEVER, 0, 0.0
    row.background_y, row.background_x = 0.0, 0.0
    if law.paste == 0:
        return
    paste, background, mask_blur, _ = _words(stream, view, _PASTE, 0)
    if _happens(paste, law.paste):
        row.paste = law.background
        row.background = philox.below(background, 255 if law.background == ON_GREY else 2**31)
        blurred = _happens(mask_blur, law.mask_blur)
        row.mask_sigma = law.mask_sigma * longer_side / PASTE_SIDE if blurred else 0.0
        y, x, _, _ = _words(stream, view, _BACKGROUND_POSITION, 0)
        row.background_y, row.background_x = (
            philox.uniform(y, 0.0, 0.5),
            philox.uniform(x, 0.0, 0.5),
        )


@jit_ieee
def _crop(stream: Stream, law: Any, view: int, height: int, width: int, rows: np.ndarray) -> None:
    row = rows[view]
    least = law.overlap * (height * width)
    for redraw in range(_REDRAWS + 1):
        y, x, h, w, fallback = _resized_crop(stream, law, view, redraw, height, width)
        if _overlaps(y, x, h, w, rows, law.anchors, least):
            break
    else:
        y, x = _overlapping_corner(stream, view, h, w, height, width, rows, law.anchors, least)
        fallback = 1
    row.box_y, row.box_x, row.box_h, row.box_w, row.fallback = y, x, h, w, fallback


@jit_ieee
def _resized_crop(
    stream: Stream, law: Any, view: int, redraw: int, height: int, width: int
) -> tuple[int, int, int, int, int]:
    """Torchvision's RandomResizedCrop.get_params: y, x, h, w, and 1 if it used its fallback."""
    for attempt in range(_TRIES):
        area, ratio, y, x = _words(stream, view, _CROP + attempt, redraw)
        target = height * width * philox.uniform(area, law.area[0], law.area[1])
        aspect = math.exp(philox.uniform(ratio, law.log_ratio[0], law.log_ratio[1]))
        w = int(np.rint(math.sqrt(target * aspect)))
        h = int(np.rint(math.sqrt(target / aspect)))
        if 0 < w <= width and 0 < h <= height:
            return philox.below(y, height - h + 1), philox.below(x, width - w + 1), h, w, 0
    h, w = height, width
    if width / height < law.ratio[0]:
        h = max(1, int(np.rint(width / law.ratio[0])))
    elif width / height > law.ratio[1]:
        w = max(1, int(np.rint(height * law.ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w, 1


@jit_ieee
def _overlaps(y: int, x: int, h: int, w: int, rows: np.ndarray, anchors: int, least: float) -> bool:
    """True if the box shares more than `least` pixels with each of the first `anchors` boxes."""
    for i in range(anchors):
        a = rows[i]
        tall = min(y + h, a.box_y + a.box_h) - max(y, a.box_y)
        wide = min(x + w, a.box_x + a.box_w) - max(x, a.box_x)
        if tall <= 0 or wide <= 0 or tall * wide <= least:
            return False
    return True


@jit_ieee
def _overlapping_corner(
    stream: Stream,
    view: int,
    h: int,
    w: int,
    height: int,
    width: int,
    rows: np.ndarray,
    anchors: int,
    least: float,
) -> tuple[int, int]:
    """Draw a corner such that an h x w box overlaps every anchor enough.

    The required overlap is split evenly between the axes. On an axis without such a corner, the box
    is centred between the anchors.
    """
    word_y, word_x, _, _ = _words(stream, view, _CORNER, 0)
    top, bottom, left, right = 0, height - h, 0, width - w
    start_y, end_y, start_x, end_x = 0, height, 0, width
    for i in range(anchors):
        a = rows[i]
        tall, wide = min(h, a.box_h), min(w, a.box_w)
        share = math.sqrt(least / (tall * wide))
        dy, dx = min(int(share * tall) + 1, tall), min(int(share * wide) + 1, wide)
        top, bottom = max(top, a.box_y + dy - h), min(bottom, a.box_y + a.box_h - dy)
        left, right = max(left, a.box_x + dx - w), min(right, a.box_x + a.box_w - dx)
        start_y, end_y = max(start_y, a.box_y), min(end_y, a.box_y + a.box_h)
        start_x, end_x = max(start_x, a.box_x), min(end_x, a.box_x + a.box_w)
    y, x = (start_y + end_y - h) // 2, (start_x + end_x - w) // 2
    if top <= bottom:
        y = top + philox.below(word_y, bottom - top + 1)
    if left <= right:
        x = left + philox.below(word_x, right - left + 1)
    return min(max(y, 0), height - h), min(max(x, 0), width - w)


@jit_ieee
def _colour(stream: Stream, law: Any, view: int, row: Any) -> None:
    jitter, order, grey, _ = _words(stream, view, _COLOUR, 0)
    row.grey = law.grey_when if _happens(grey, law.grey) else GREY_NEVER
    if not _happens(jitter, law.jitter):
        row.order = NO_JITTER
        row.brightness, row.contrast, row.saturation, row.hue = 1.0, 1.0, 1.0, 0.0
        return
    row.order = _ORDERS[philox.below(order, 24)]
    brightness, contrast, saturation, hue = _words(stream, view, _FACTORS, 0)
    row.brightness = philox.uniform(brightness, law.brightness[0], law.brightness[1])
    row.contrast = philox.uniform(contrast, law.contrast[0], law.contrast[1])
    row.saturation = philox.uniform(saturation, law.saturation[0], law.saturation[1])
    row.hue = philox.uniform(hue, law.hue[0], law.hue[1])


@jit_ieee
def _blur_and_solarise(stream: Stream, law: Any, view: int, row: Any) -> None:
    blur, sigma, solarise, _ = _words(stream, view, _BLUR, 0)
    row.solarise = _happens(solarise, law.solarise)
    row.sigma, row.radius = 0.0, 0
    if _happens(blur, law.blur):
        row.sigma = philox.uniform(sigma, law.sigma[0], law.sigma[1])
        row.radius = math.ceil(3 * row.sigma) if law.radius == AUTO_RADIUS else law.radius
