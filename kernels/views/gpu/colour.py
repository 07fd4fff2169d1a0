"""Grey and colour jitter on the GPU: in registers, and the pass that knows the contrast's mean.

The mean luma of a view needs all of it. So a view with contrast that is larger than one tile stops
at the contrast in the first pass, which leaves a sum for each tile, and goes on in `contrast`. The
sums are added up in one order, which makes every run the same to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views import decisions as rows
from patchmill.kernels.views.gpu import decisions as field
from patchmill.kernels.views.gpu.finish import finish, keep, kept

BRIGHTNESS, CONTRAST = tl.constexpr(rows.BRIGHTNESS), tl.constexpr(rows.CONTRAST)
SATURATION, HUE = tl.constexpr(rows.SATURATION), tl.constexpr(rows.HUE)
NO_JITTER = tl.constexpr(rows.NO_JITTER)
GREY_FIRST, GREY_LAST = tl.constexpr(rows.GREY_FIRST), tl.constexpr(rows.GREY_LAST)
RED, GREEN, BLUE = map(tl.constexpr, rows.LUMA)


@triton.jit(do_not_specialize=["n_groups", "n_views", "most_tiles"])
def contrast(
    rows, slots, groups, listed, out, planes, sums, n_groups, n_views, most_tiles,
    PIXELS: tl.constexpr, TILE: tl.constexpr, EVEN: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Finish, or put aside for the blur, the views that wait for their mean luma; PIXELS a block.

    Moves 6 bytes a pixel in and those of the view out; computes about 12 operations a value for
    each of the operations that are left, the hue 20.
    """
    entry, block, _ = field.piece(groups, n_groups, tl.program_id(0))
    index = tl.load(listed + entry)
    row = rows + index * field.FIELDS
    at, size, scales = field.slot_of(slots, index % n_views, index // n_views, EVEN)
    area = size * size

    side = tl.cdiv(size, TILE)
    tiles = side * side
    total = 0.0
    for first in range(0, tiles, 64):
        tile = first + tl.arange(0, 64)
        total += tl.sum(tl.load(sums + index.to(tl.int64) * most_tiles + tile, tile < tiles, 0.0))
    mean = total / area

    pixel = (block * PIXELS + tl.arange(0, PIXELS))[None, :]
    seen = pixel < area
    red, green, blue = kept(planes, at, pixel, seen, area)
    red, green, blue = jitter(
        red, green, blue, row, contrast_place(row), 4, mean, seen, area, False
    )
    red, green, blue = grey(red, green, blue, tl.load(row + field.GREY) == GREY_LAST)
    if field.number(row, field.SIGMA) > 0:
        keep(red, green, blue, planes, at, pixel, seen, area)
    else:
        finish(red, green, blue, row, scales, out, at, pixel, seen, area, CHANNELS_LAST)


@triton.jit
def contrast_place(row):
    """At which place of the jitter's order the contrast comes."""
    order = tl.load(row + field.ORDER)
    second = ((order >> 2) & 3) == CONTRAST
    third = ((order >> 4) & 3) == CONTRAST
    fourth = ((order >> 6) & 3) == CONTRAST
    return second.to(tl.int32) + 2 * third.to(tl.int32) + 3 * fourth.to(tl.int32)


@triton.jit
def jitter(red, green, blue, row, first, last, mean, seen, area, MEASURE: tl.constexpr):
    """Operations `first` to `last` of the row's order; with MEASURE the tile is the whole view."""
    order = tl.load(row + field.ORDER)
    brightness = field.number(row, field.BRIGHTNESS)
    factor_of_contrast = field.number(row, field.CONTRAST)
    saturation = field.number(row, field.SATURATION)
    hue = field.number(row, field.HUE)
    for place in range(first, last):
        operation = (order >> (2 * place)) & 3
        if operation == HUE:
            red, green, blue = turn_hue(red, green, blue, hue)
        else:
            # clamp(factor x + (1 - factor) y), where y is 0, the mean luma or the pixel's luma.
            own = luma(red, green, blue)
            factor, other = brightness, tl.zeros_like(own)
            if operation == CONTRAST:
                factor = factor_of_contrast
                if MEASURE:
                    other += tl.sum(tl.where(seen, own, 0.0)) / area
                else:
                    other += mean
            if operation == SATURATION:
                factor, other = saturation, own
            other *= 1 - factor
            red = tl.clamp(factor * red + other, 0.0, 1.0)
            green = tl.clamp(factor * green + other, 0.0, 1.0)
            blue = tl.clamp(factor * blue + other, 0.0, 1.0)
    return red, green, blue


@triton.jit
def grey(red, green, blue, wanted):
    if wanted:
        red = luma(red, green, blue)
        green, blue = red, red
    return red, green, blue


@triton.jit
def luma(red, green, blue):
    return red * RED + green * GREEN + blue * BLUE


@triton.jit
def turn_hue(red, green, blue, shift):
    """HSV with the hue turned by `shift` turns, as in the CPU renderer, but times the spread.

    The hue in sixths of a turn, times the spread of the channels, needs no division.
    """
    top = tl.maximum(tl.maximum(red, green), blue)
    spread = top - tl.minimum(tl.minimum(red, green), blue)
    is_red, is_green = top == red, top == green
    rise = tl.where(is_red, green - blue, tl.where(is_green, blue - red, red - green))
    turn = 6 * (shift - tl.floor(shift + 0.5))
    hue = rise + spread * tl.where(is_red, turn, tl.where(is_green, 2 + turn, 4 + turn))
    hue = tl.where(hue > 3 * spread, hue - 6 * spread, hue)
    hue = tl.where(hue < -3 * spread, hue + 6 * spread, hue)
    return (
        top - tl.clamp(tl.abs(hue) - spread, 0.0, spread),
        top - tl.clamp(2 * spread - tl.abs(hue + spread), 0.0, spread),
        top - tl.clamp(2 * spread - tl.abs(hue - spread), 0.0, spread),
    )
