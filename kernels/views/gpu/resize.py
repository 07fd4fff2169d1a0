"""The first pass on the GPU: crop, antialiased resize, flip, turn, and what colour there can be.

A tile of the view is two products of matrices, down @ box @ across, on tensor cores: `down` and
`across` hold the filter's weights, computed in registers where they are needed, `box` the tile's
part of the picture, whose bytes float16 holds exactly. Each tile reads each of its bytes once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import decisions as field
from patchmill.kernels.views.gpu.axis import FAR, LEAST_TOTAL, axis
from patchmill.kernels.views.gpu.colour import (
    GREY_FIRST,
    GREY_LAST,
    NO_JITTER,
    contrast_place,
    grey,
    jitter,
    luma,
)
from patchmill.kernels.views.gpu.finish import finish, keep
from patchmill.kernels.views.gpu.paste import FIELDS as PASTED_FIELDS
from patchmill.kernels.views.gpu.paste import paste
from patchmill.kernels.views.gpu.pixels import pixels


@triton.jit(do_not_specialize=["n_groups", "n_views", "per_image", "most_tiles"])
def resize(
    images, pasted, rows, slots, groups, out, planes, sums,
    n_groups, n_views, per_image, most_tiles,
    BICUBIC: tl.constexpr, PASTES: tl.constexpr,
    TILE: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr,
    EVEN: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One TILE x TILE tile of a view, from bytes; DEEP x WIDE pixels of the picture at a time.

    Views that need neither blur nor the mean of more than a tile end here.

    Must move: 3 bytes a pixel of the crop in, the view out, or 6 bytes a pixel to the next pass.
    Must compute: for each value, with the filter's reach r (4 bicubic, 2 bilinear) and the shrink
    s >= 1 on an axis, r s_y s_x + r s_x multiply-adds, and the colour. Done instead, on tensor
    cores: TILE of them a byte, and two a weight, of which DEEP + WIDE serve DEEP x WIDE bytes.
    """
    block = tl.program_id(0)
    sample = block // per_image
    view, tile, tiles = field.piece(groups, n_groups, block % per_image)
    index = sample * n_views + view
    row = rows + index * field.FIELDS
    at, size, scales = field.slot_of(slots, view, sample, EVEN)
    side = tl.cdiv(size, TILE)
    tile_y, tile_x = tile // side * TILE, tile % side * TILE

    flip, turns = tl.load(row + field.FLIP) != 0, tl.load(row + field.TURNS) & 3
    turned = (turns & 1) == 1
    reverse_x = flip != ((turns == 1) | (turns == 2))
    first_y, first_x = tl.where(turned, tile_x, tile_y), tl.where(turned, tile_y, tile_x)
    red, green, blue = _cut(
        images + 2 * sample, row, first_y, first_x, size, turns >= 2, reverse_x,
        BICUBIC, TILE, DEEP, WIDE,
    )  # fmt: skip
    if PASTES:
        red, green, blue = paste(
            red, green, blue, pasted + PASTED_FIELDS * sample, row, first_y, first_x, size,
            turns >= 2, reverse_x, PASTES, TILE,
        )  # fmt: skip
    if turned:
        red, green, blue = tl.trans(red), tl.trans(green), tl.trans(blue)

    y = (tile_y + tl.arange(0, TILE))[:, None]
    x = (tile_x + tl.arange(0, TILE))[None, :]
    pixel, seen, area = y * size + x, (y < size) & (x < size), size * size
    jittered = tl.load(row + field.ORDER) != NO_JITTER
    waits = jittered & (field.number(row, field.CONTRAST) != 1) & (tiles > 1)
    last = tl.where(waits, contrast_place(row), tl.where(jittered, 4, 0))
    grey_when = tl.load(row + field.GREY)
    red, green, blue = grey(red, green, blue, grey_when == GREY_FIRST)
    red, green, blue = jitter(red, green, blue, row, 0, last, 0.0, seen, area, True)
    red, green, blue = grey(red, green, blue, (grey_when == GREY_LAST) & (waits == 0))

    if waits:
        total = tl.sum(tl.where(seen, luma(red, green, blue), 0.0))
        tl.store(sums + index.to(tl.int64) * most_tiles + tile, total)
    if waits | (field.number(row, field.SIGMA) > 0):
        keep(red, green, blue, planes, at, pixel, seen, area)
    else:
        finish(red, green, blue, row, scales, out, at, pixel, seen, area, CHANNELS_LAST)


@triton.jit
def _cut(
    image, row, first_y, first_x, size, reverse_y, reverse_x,
    BICUBIC: tl.constexpr, TILE: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A tile of the window of the resized box, 0 to 1, black outside of the box."""
    start_y, length_y, place_y, shrink_y, inside_y = _box_axis(
        tl.load(row + field.BOX_H), tl.load(row + field.FULL_H), tl.load(row + field.WIN_Y),
        first_y, size, reverse_y, BICUBIC, TILE,
    )  # fmt: skip
    start_x, length_x, place_x, shrink_x, inside_x = _box_axis(
        tl.load(row + field.BOX_W), tl.load(row + field.FULL_W), tl.load(row + field.WIN_X),
        first_x, size, reverse_x, BICUBIC, TILE,
    )  # fmt: skip
    pitch = tl.load(image + 1)
    corner = tl.load(image)
    corner += (tl.load(row + field.BOX_Y) + start_y) * pitch
    corner += 3 * (tl.load(row + field.BOX_X) + start_x)
    y, x = tl.arange(0, DEEP), tl.arange(0, WIDE)
    ones_y = tl.full([DEEP, 16], 1.0, tl.float16)
    ones_x = tl.full([16, WIDE], 1.0, tl.float16)
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, WIDE):
        strip_red = tl.zeros([TILE, WIDE], tl.float32)
        strip_green = tl.zeros([TILE, WIDE], tl.float32)
        strip_blue = tl.zeros([TILE, WIDE], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, DEEP):
            tap_y = tl.where(top + y < length_y, (top + y + 0.5) * shrink_y, FAR)
            down = _weights(tap_y[None, :], place_y[:, None], BICUBIC)
            r, g, b = pixels(corner + 3 * left, pitch, top + y, length_y, length_x - left, WIDE)
            strip_red = tl.dot(down, r, strip_red)
            strip_green = tl.dot(down, g, strip_green)
            strip_blue = tl.dot(down, b, strip_blue)
            total_y = tl.dot(down, ones_y, total_y)
        tap_x = tl.where(left + x < length_x, (left + x + 0.5) * shrink_x, FAR)
        across = _weights(tap_x[:, None], place_x[None, :], BICUBIC)
        share = (1 / tl.maximum(tl.max(total_y, 1), LEAST_TOTAL))[:, None]
        red = tl.dot((strip_red * share - (1024 + 128)).to(tl.float16), across, red)
        green = tl.dot((strip_green * share - (1024 + 128)).to(tl.float16), across, green)
        blue = tl.dot((strip_blue * share - (1024 + 128)).to(tl.float16), across, blue)
        total_x = tl.dot(ones_x, across, total_x)
    share = (1 / (tl.maximum(tl.max(total_x, 0), LEAST_TOTAL) * 255))[None, :]
    seen = inside_y[:, None] & inside_x[None, :]
    red = tl.where(seen, tl.clamp(red * share + 128 / 255, 0.0, 1.0), 0.0)
    green = tl.where(seen, tl.clamp(green * share + 128 / 255, 0.0, 1.0), 0.0)
    blue = tl.where(seen, tl.clamp(blue * share + 128 / 255, 0.0, 1.0), 0.0)
    return red, green, blue


@triton.jit
def _box_axis(box, full, window, first, size, reverse, BICUBIC: tl.constexpr, TILE: tl.constexpr):
    scale = box.to(tl.float64) / full.to(tl.float64)
    unit = tl.maximum(scale, 1.0)
    reach = (2.0 if BICUBIC else 1.0) * unit
    return axis(box, 0.0, scale, unit, reach, full, window, first, size, reverse, TILE)


@triton.jit
def _weights(tap, place, BICUBIC: tl.constexpr):
    """The filter at distances in units of its own: not yet of sum one.

    With a = max(2 - x, 0) and b = max(1 - x, 0), half of Keys' kernel (of -1/2) is a^2 (a - 1) / 4
    + b^2 (1/2 - b), free of branches, and the triangle is b.
    """
    x = tl.abs(tap - place)
    b = tl.maximum(1 - x, 0.0)
    if BICUBIC:
        a = tl.maximum(2 - x, 0.0)
        return (a * a * (a * 0.25 - 0.25) + b * b * (0.5 - b)).to(tl.float16)
    else:
        return b.to(tl.float16)
