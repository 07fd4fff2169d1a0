"""`blur` pass on the GPU: separable Gaussian as two matrix products per tile."""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.encode import encode_view

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["n_groups", "n_views"])
def blur(
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [n_groups, 3] int32
    entries,  # [views in this pass] int32: sample * n_views + view
    out,  # [batch elements], dtype of the batch
    planes,  # [batch elements] float16
    n_groups, n_views,
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, ALIGNED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One TILE x TILE tile of a view, from TAPS_Y x TAPS_X source pixels per step.

    Borders are reflected. Reads 6 bytes per pixel of the tile and of its surroundings within the
    blur's radius, and writes the view. Computes TILE multiply-adds on tensor cores per value read.
    """
    # Block to view and tile.
    entry, tile, _ = fields.locate_block(groups, n_groups, tl.program_id(0))
    index = tl.load(entries + entry)
    row = rows + index * fields.FIELDS
    offset, size, scales = fields.load_slot(slots, index % n_views, index // n_views, ALIGNED)
    side, area = tl.cdiv(size, TILE), size * size
    tile_y, tile_x = tile // side * TILE, tile % side * TILE
    red, green, blue = _blur_tile(
        planes + offset, row, tile_y, tile_x, size, area, TILE, TAPS_Y, TAPS_X
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
    """weights_y @ planes @ weights_x; weights are normalised after each product."""
    radius = tl.load(row + fields.BLUR_RADIUS)
    sigma = fields.load_float(row, fields.BLUR_SIGMA)
    falloff = -0.5 * LOG2_E / (sigma * sigma)
    step = tl.arange(0, TILE)
    length_y = tl.minimum(size - tile_y, TILE) + 2 * radius
    length_x = tl.minimum(size - tile_x, TILE) + 2 * radius
    ones_y = tl.full([TAPS_Y, 16], 1.0, tl.float16)
    ones_x = tl.full([16, TAPS_X], 1.0, tl.float16)
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, TAPS_X):
        x = left - radius + tl.arange(0, TAPS_X)
        source_x = _reflect(tile_x + x, size, radius)
        # Vertical pass over a strip of TAPS_X columns; the weight sums by a product with ones.
        strip_red = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_green = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_blue = tl.zeros([TILE, TAPS_X], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, TAPS_Y):
            y = top - radius + tl.arange(0, TAPS_Y)
            weights_y = _weights(y[None, :], step[:, None], radius, falloff)
            pixel = (_reflect(tile_y + y, size, radius) * size)[:, None] + source_x[None, :]
            strip_red = tl.dot(weights_y, tl.load(planes + pixel), strip_red)
            strip_green = tl.dot(weights_y, tl.load(planes + area + pixel), strip_green)
            strip_blue = tl.dot(weights_y, tl.load(planes + 2 * area + pixel), strip_blue)
            total_y = tl.dot(weights_y, ones_y, total_y)
        # Horizontal pass: accumulate the normalised strip.
        weights_x = _weights(x[:, None], step[None, :], radius, falloff)
        norm = (1 / tl.maximum(tl.max(total_y, 1), 1.0))[:, None]
        red = tl.dot((strip_red * norm).to(tl.float16), weights_x, red)
        green = tl.dot((strip_green * norm).to(tl.float16), weights_x, green)
        blue = tl.dot((strip_blue * norm).to(tl.float16), weights_x, blue)
        total_x = tl.dot(ones_x, weights_x, total_x)
    # Normalise and undo the planes' offset of 0.5.
    norm = (1 / tl.maximum(tl.max(total_x, 0), 1.0))[None, :]
    red = tl.clamp(red * norm + 0.5, 0.0, 1.0)
    green = tl.clamp(green * norm + 0.5, 0.0, 1.0)
    blue = tl.clamp(blue * norm + 0.5, 0.0, 1.0)
    return red, green, blue


@triton.jit
def _weights(tap, centre, radius, falloff):
    """Unnormalised Gaussian within the radius; the centre weighs 1, so sums are at least 1."""
    distance = tap.to(tl.float32) - centre.to(tl.float32)
    weight = tl.exp2(distance * distance * falloff)
    return tl.where(tl.abs(distance) <= radius, weight, 0.0).to(tl.float16)


@triton.jit
def _reflect(index, size, radius):
    """Index >= -radius into a row reflected at its first and last pixel."""
    period = tl.maximum(2 * size - 2, 1)
    index = tl.minimum(index, size - 1 + radius)
    if radius >= size:  # reflected more than once
        index = (index + period * (radius // period + 1)) % period
    index = tl.abs(index)
    return tl.minimum(index, period - index)
