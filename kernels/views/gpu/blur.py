"""The last pass on the GPU, for blurred views: two products of matrices a tile, like the resize."""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import decisions as field
from patchmill.kernels.views.gpu.finish import finish

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["n_groups", "n_views"])
def blur(
    rows, slots, groups, listed, out, planes, n_groups, n_views,
    TILE: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr, EVEN: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One tile of a blurred view; DEEP x WIDE pixels of the sharp one at a time, borders reflected.

    Reads 6 bytes a pixel of the tile and of what is within the blur's radius of it, and writes the
    view. Computes TILE multiply-adds on tensor cores for each number read.
    """
    entry, tile, _ = field.piece(groups, n_groups, tl.program_id(0))
    index = tl.load(listed + entry)
    row = rows + index * field.FIELDS
    at, size, scales = field.slot_of(slots, index % n_views, index // n_views, EVEN)
    side, area = tl.cdiv(size, TILE), size * size
    tile_y, tile_x = tile // side * TILE, tile % side * TILE
    red, green, blue = _soft(planes + at, row, tile_y, tile_x, size, area, TILE, DEEP, WIDE)

    y = (tile_y + tl.arange(0, TILE))[:, None]
    x = (tile_x + tl.arange(0, TILE))[None, :]
    seen = (y < size) & (x < size)
    finish(red, green, blue, row, scales, out, at, y * size + x, seen, area, CHANNELS_LAST)


@triton.jit
def _soft(
    plane, row, tile_y, tile_x, size, area,
    TILE: tl.constexpr, DEEP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out = down @ sharp @ across; weights come to a sum of one after each product."""
    radius, sigma = tl.load(row + field.RADIUS), field.number(row, field.SIGMA)
    falloff = -0.5 * LOG2_E / (sigma * sigma)
    step = tl.arange(0, TILE)
    length_y = tl.minimum(size - tile_y, TILE) + 2 * radius
    length_x = tl.minimum(size - tile_x, TILE) + 2 * radius
    ones_y = tl.full([DEEP, 16], 1.0, tl.float16)
    ones_x = tl.full([16, WIDE], 1.0, tl.float16)
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, WIDE):
        x = left - radius + tl.arange(0, WIDE)
        x_from = _reflected(tile_x + x, size, radius)
        strip_red = tl.zeros([TILE, WIDE], tl.float32)
        strip_green = tl.zeros([TILE, WIDE], tl.float32)
        strip_blue = tl.zeros([TILE, WIDE], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, DEEP):
            y = top - radius + tl.arange(0, DEEP)
            down = _weights(y[None, :], step[:, None], radius, falloff)
            pixel = (_reflected(tile_y + y, size, radius) * size)[:, None] + x_from[None, :]
            strip_red = tl.dot(down, tl.load(plane + pixel), strip_red)
            strip_green = tl.dot(down, tl.load(plane + area + pixel), strip_green)
            strip_blue = tl.dot(down, tl.load(plane + 2 * area + pixel), strip_blue)
            total_y = tl.dot(down, ones_y, total_y)
        across = _weights(x[:, None], step[None, :], radius, falloff)
        share = (1 / tl.maximum(tl.max(total_y, 1), 1.0))[:, None]
        red = tl.dot((strip_red * share).to(tl.float16), across, red)
        green = tl.dot((strip_green * share).to(tl.float16), across, green)
        blue = tl.dot((strip_blue * share).to(tl.float16), across, blue)
        total_x = tl.dot(ones_x, across, total_x)
    share = (1 / tl.maximum(tl.max(total_x, 0), 1.0))[None, :]
    red = tl.clamp(red * share + 0.5, 0.0, 1.0)
    green = tl.clamp(green * share + 0.5, 0.0, 1.0)
    blue = tl.clamp(blue * share + 0.5, 0.0, 1.0)
    return red, green, blue


@triton.jit
def _weights(tap, place, radius, falloff):
    """The Gaussian within the radius, 1 in the middle: of a sum of 1 at least."""
    distance = tap.to(tl.float32) - place.to(tl.float32)
    weight = tl.exp2(distance * distance * falloff)
    return tl.where(tl.abs(distance) <= radius, weight, 0.0).to(tl.float16)


@triton.jit
def _reflected(index, size, radius):
    """Index i >= -radius of an endless row that is mirrored at its first and last pixel."""
    period = tl.maximum(2 * size - 2, 1)
    index = tl.minimum(index, size - 1 + radius)
    if radius >= size:  # and is mirrored again and again
        index = (index + period * (radius // period + 1)) % period
    index = tl.abs(index)
    return tl.minimum(index, period - index)
