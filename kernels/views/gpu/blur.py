"""`blur` pass on the GPU: separable Gaussian as two matrix products per tile."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.encode import encode_view

UNIT = tl.constexpr(math.sqrt(math.log2(math.e) / 2))  # exp(-x^2 / 2) is 2 ** -(UNIT x)^2
MIN_TOTAL = tl.constexpr(0.1)  # only pixels outside, or whose weights come later, fall below it
FAR = tl.constexpr(1 << 20)  # beyond any radius


@triton.jit(do_not_specialize=["n_groups", "n_views", "chunk", "first_sample"])
def blur(
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [chunks, n_groups, 3] int32
    entries,  # [views in this pass] int32: sample * n_views + view
    out,  # [batch elements], dtype of the batch
    planes,  # [elements of a chunk] float16
    n_groups, n_views, chunk, first_sample,
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One TILE x TILE tile of a view, from TAPS_Y x TAPS_X source pixels per step.

    Borders are reflected. Reads 6 bytes per pixel of the tile and of its surroundings within the
    blur's radius, and writes the view. Computes TILE multiply-adds on tensor cores per value read.
    """
    # Block to view and tile.
    groups += chunk * n_groups * fields.GROUP_FIELDS
    entry, tile, _ = fields.locate_block(groups, n_groups, tl.program_id(0))
    index = tl.load(entries + entry)
    row = rows + index * fields.FIELDS
    offset, in_planes, size, scales = fields.load_slot(
        slots, index % n_views, index // n_views, first_sample, ALIGNED
    )  # fmt: skip
    side, area = tl.cdiv(size, TILE), size * size
    tile_y, tile_x = tile // side * TILE, tile % side * TILE
    red, green, blue = _blur_tile(
        planes + in_planes, row, tile_y, tile_x, size, area, TILE, TAPS_Y, TAPS_X
    )  # fmt: skip

    # Write to the batch.
    y = (tile_y + tl.arange(0, TILE))[:, None]
    x = (tile_x + tl.arange(0, TILE))[None, :]
    mask = (y < size) & (x < size)
    encode_view(
        red, green, blue, row, scales, out, offset, y * size + x, mask, area, CHANNELS_LAST
    )  # fmt: skip


@triton.jit
def _blur_tile(
    planes,  # [3, size, size] float16
    row,  # [FIELDS] int32
    tile_y, tile_x, size, area,
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
):  # fmt: skip
    """weights_y @ planes @ weights_x; weights are normalised after each product.

    Pixels are read in memory order: a weight is the sum of the weights of a pixel and its
    reflections. TAPS_Y rows cover a tile's footprint unless the radius is larger than usual.
    """
    radius = tl.load(row + fields.BLUR_RADIUS)
    sigma = fields.load_float(row, fields.BLUR_SIGMA)
    unit = UNIT / sigma
    top, bottom = tl.maximum(tile_y - radius, 0), tl.minimum(tile_y + TILE + radius, size)
    left, right = tl.maximum(tile_x - radius, 0), tl.minimum(tile_x + TILE + radius, size)
    left = left // 8 * 8  # for loads of 16 bytes
    period, mirrors_y, lowest, repeats = _reflections(tile_y, size, radius, TILE)
    period, mirrors_x, lowest, repeats = _reflections(tile_x, size, radius, TILE)
    y, x = tl.arange(0, TAPS_Y), tl.arange(0, TAPS_X)
    # Sum weights by products with ones: the sums get the layout of the elements they divide.
    ones_y = tl.full([TAPS_Y, TAPS_X], 1.0, tl.float16)
    ones_x = tl.full([TAPS_X, 16], 1.0, tl.float16)
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([TILE, 16], tl.float32)
    total_y = tl.zeros([TILE, TAPS_X], tl.float32)
    steps_y = tl.cdiv(bottom - top, TAPS_Y)
    for step_y in range(0, steps_y * repeats):
        source_y = top + step_y % steps_y * TAPS_Y + y
        shift = (lowest + step_y // steps_y) * period - tile_y
        weights_y = _weights(source_y, shift, mirrors_y, size, period, radius, unit, TILE)
        before = total_y
        total_y = tl.dot(weights_y, ones_y, total_y)
        if step_y > 0:
            # Rescale the sums of earlier rows, which were divided by their own weights only.
            divisor = tl.maximum(tl.max(before, 1), MIN_TOTAL)
            earlier = (divisor / tl.maximum(tl.max(total_y, 1), MIN_TOTAL))[:, None]
            red, green, blue = red * earlier, green * earlier, blue * earlier
        norm = 1 / tl.maximum(total_y, MIN_TOTAL)
        rows = planes + (tl.minimum(source_y, size - 1) * size)[:, None]
        for repeat in range(lowest, lowest + repeats):
            for first_x in range(left, right, TAPS_X):
                # Vertical pass over a strip of TAPS_X columns, and its part of the horizontal pass.
                source_x = first_x + x
                shift = repeat * period - tile_x
                across = _weights(source_x, shift, mirrors_x, size, period, radius, unit, TILE)
                weights_x = tl.trans(across)
                pixel = rows + source_x[None, :]
                mask = (source_y < bottom)[:, None] & (source_x < size)[None, :]
                strip = tl.dot(weights_y, tl.load(pixel, mask, 0.0))
                red = tl.dot((strip * norm).to(tl.float16), weights_x, red)
                strip = tl.dot(weights_y, tl.load(pixel + area, mask, 0.0))
                green = tl.dot((strip * norm).to(tl.float16), weights_x, green)
                strip = tl.dot(weights_y, tl.load(pixel + 2 * area, mask, 0.0))
                blue = tl.dot((strip * norm).to(tl.float16), weights_x, blue)
                total_x = tl.dot(across, ones_x, total_x)
    # Normalise and undo the planes' offset of 0.5.
    norm = (steps_y * repeats / tl.maximum(tl.max(total_x, 1), MIN_TOTAL))[None, :]
    red = tl.clamp(red * norm + 0.5, 0.0, 1.0)
    green = tl.clamp(green * norm + 0.5, 0.0, 1.0)
    blue = tl.clamp(blue * norm + 0.5, 0.0, 1.0)
    return red, green, blue


@triton.jit
def _reflections(tile, size, radius, TILE: tl.constexpr):
    """Repeats of the pixels that a tile needs, on a line reflected at its first and last pixel.

    Pixel j lies at j + n period and, unless it is the first or last, mirrored at -j + n period.
    Returns the period, whether mirrored pixels are needed, the lowest n, and the number of n.
    """
    period = tl.maximum(2 * size - 2, 1)
    mirrors = (tile < radius) | (tile + TILE + radius > size)
    lowest, repeats = 0, 1
    if 2 * radius + 2 >= size:  # beyond the mirror image at the nearer end
        lowest = -((size + radius) // period + 1)
        repeats = 2 - 2 * lowest
    return period, mirrors, lowest, repeats


@triton.jit
def _weights(tap, shift, mirrors, size, period, radius, unit, TILE: tl.constexpr):
    """[TILE, taps] unnormalised weights of pixels `tap`, also mirrored at the nearer end.

    `shift` converts a pixel's position to one relative to the tile.
    """
    weights = _gaussian(tl.where(tap < size, tap + shift, FAR), radius, unit, TILE)
    if mirrors:
        there = tl.where(2 * tap < size, shift - tap, shift + period - tap)
        there = tl.where((tap > 0) & (tap < size - 1), there, FAR)
        weights += _gaussian(there, radius, unit, TILE)
    return weights.to(tl.float16)


@triton.jit
def _gaussian(tap, radius, unit, TILE: tl.constexpr):
    """[TILE, taps] Gaussian of the distances from 0 .. TILE - 1, 0 beyond the radius."""
    centre = tl.arange(0, TILE).to(tl.float32) * unit
    distance = (tap.to(tl.float32) * unit)[None, :] - centre[:, None]
    inside = tl.abs(distance) < (radius + 0.5) * unit
    return tl.where(inside, tl.exp2(-distance * distance), 0.0)
