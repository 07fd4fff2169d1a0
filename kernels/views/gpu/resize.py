"""`resize` pass on the GPU: crop, antialiased resize, paste, flip, turns, and colour if possible.

A tile of a view is two matrix products on tensor cores, weights_y @ box @ weights_x. The filter
weights are computed in registers where they are needed; `box` is the tile's footprint in the image,
whose bytes float16 holds exactly. Each tile reads each byte of its footprint once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.views.gpu import fields
from patchmill.kernels.views.gpu.colour import (
    GREY_FIRST,
    GREY_LAST,
    NO_JITTER,
    contrast_position,
    grey,
    jitter,
    luma,
)
from patchmill.kernels.views.gpu.encode import encode_view, store_planes
from patchmill.kernels.views.gpu.footprint import FAR, MIN_TOTAL, footprint
from patchmill.kernels.views.gpu.paste import PASTE_FIELDS, paste
from patchmill.kernels.views.gpu.pixels import load_rgb


@triton.jit(do_not_specialize=["n_groups", "n_views", "blocks_per_image", "max_tiles"])
def resize(
    images,  # [batch, 2] int64: address, row pitch in bytes
    paste_table,  # [batch, PASTE_FIELDS] int64, or empty
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [n_groups, 3] int32
    out,  # [batch elements], dtype of the batch
    planes,  # [batch elements] float16, or empty
    luma_sums,  # [batch * n_views, max_tiles] float32, or empty
    n_groups, n_views, blocks_per_image, max_tiles,
    BICUBIC: tl.constexpr, BACKGROUNDS: tl.constexpr,
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One TILE x TILE tile of a view, from TAPS_Y x TAPS_X source pixels per step.

    Views that need neither blur nor the mean luma of several tiles are finished here.

    Lower bounds. Traffic: 3 bytes per pixel of the crop in; the view, or 6 bytes per pixel for the
    next pass, out. Compute per value, with filter support r (4 bicubic, 2 bilinear), downscaling
    s >= 1 per axis: r s_y s_x + r s_x multiply-adds, and the colour. Done instead, on tensor cores:
    TILE multiply-adds per byte, and two per weight; TAPS_Y + TAPS_X weights serve TAPS_Y x TAPS_X
    bytes.
    """
    # Block to image, view and tile.
    block = tl.program_id(0)
    sample = block // blocks_per_image
    view, tile, tiles = fields.locate_block(groups, n_groups, block % blocks_per_image)
    index = sample * n_views + view
    row = rows + index * fields.FIELDS
    offset, size, scales = fields.load_slot(slots, view, sample, ALIGNED)
    side = tl.cdiv(size, TILE)
    tile_y, tile_x = tile // side * TILE, tile % side * TILE

    # Flip and turns: render the tile reversed along its axes, then transpose it.
    flip, turns = tl.load(row + fields.FLIP) != 0, tl.load(row + fields.TURNS) & 3
    transposed = (turns & 1) == 1
    reverse_x = flip != ((turns == 1) | (turns == 2))
    first_y, first_x = tl.where(transposed, tile_x, tile_y), tl.where(transposed, tile_y, tile_x)
    red, green, blue = _resample_tile(
        images + 2 * sample, row, first_y, first_x, size, turns >= 2, reverse_x,
        BICUBIC, TILE, TAPS_Y, TAPS_X,
    )  # fmt: skip
    if BACKGROUNDS:
        red, green, blue = paste(
            red, green, blue, paste_table + PASTE_FIELDS * sample, row, first_y, first_x, size,
            turns >= 2, reverse_x, BACKGROUNDS, TILE,
        )  # fmt: skip
    if transposed:
        red, green, blue = tl.trans(red), tl.trans(green), tl.trans(blue)

    # Colour: everything, or up to a contrast that needs the other tiles' luma.
    y = (tile_y + tl.arange(0, TILE))[:, None]
    x = (tile_x + tl.arange(0, TILE))[None, :]
    pixel, mask, area = y * size + x, (y < size) & (x < size), size * size
    jittered = tl.load(row + fields.ORDER) != NO_JITTER
    needs_mean = jittered & (fields.load_float(row, fields.CONTRAST) != 1) & (tiles > 1)
    last = tl.where(needs_mean, contrast_position(row), tl.where(jittered, 4, 0))
    grey_when = tl.load(row + fields.GREY)
    red, green, blue = grey(red, green, blue, grey_when == GREY_FIRST)
    red, green, blue = jitter(red, green, blue, row, 0, last, 0.0, mask, area, True)
    red, green, blue = grey(red, green, blue, (grey_when == GREY_LAST) & (needs_mean == 0))

    # On to the contrast or blur pass, or to the batch.
    if needs_mean:
        total = tl.sum(tl.where(mask, luma(red, green, blue), 0.0))
        tl.store(luma_sums + index.to(tl.int64) * max_tiles + tile, total)
    if needs_mean | (fields.load_float(row, fields.BLUR_SIGMA) > 0):
        store_planes(red, green, blue, planes, offset, pixel, mask, area)
    else:
        encode_view(
            red, green, blue, row, scales, out, offset, pixel, mask, area, CHANNELS_LAST
        )  # fmt: skip


@triton.jit
def _resample_tile(
    image,  # [2] int64: address of uint8 HWC pixels, row pitch in bytes
    row,  # [FIELDS] int32
    first_y, first_x, size, reverse_y, reverse_x,
    BICUBIC: tl.constexpr, TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
):  # fmt: skip
    """A tile of the window of the resized box, 0 to 1; black outside of the box."""
    # Footprint of the tile in the box.
    start_y, length_y, centre_y, tap_step_y, inside_y = _box_footprint(
        tl.load(row + fields.BOX_H), tl.load(row + fields.FULL_H), tl.load(row + fields.WIN_Y),
        first_y, size, reverse_y, BICUBIC, TILE,
    )  # fmt: skip
    start_x, length_x, centre_x, tap_step_x, inside_x = _box_footprint(
        tl.load(row + fields.BOX_W), tl.load(row + fields.FULL_W), tl.load(row + fields.WIN_X),
        first_x, size, reverse_x, BICUBIC, TILE,
    )  # fmt: skip
    pitch = tl.load(image + 1)
    corner = tl.load(image)
    corner += (tl.load(row + fields.BOX_Y) + start_y) * pitch
    corner += 3 * (tl.load(row + fields.BOX_X) + start_x)
    y, x = tl.arange(0, TAPS_Y), tl.arange(0, TAPS_X)
    ones_y = tl.full([TAPS_Y, 16], 1.0, tl.float16)
    ones_x = tl.full([16, TAPS_X], 1.0, tl.float16)
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    total_x = tl.zeros([16, TILE], tl.float32)
    for left in range(0, length_x, TAPS_X):
        # Vertical pass over a strip of TAPS_X columns; the weight sums by a product with ones.
        strip_red = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_green = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_blue = tl.zeros([TILE, TAPS_X], tl.float32)
        total_y = tl.zeros([TILE, 16], tl.float32)
        for top in range(0, length_y, TAPS_Y):
            tap_y = tl.where(top + y < length_y, (top + y + 0.5) * tap_step_y, FAR)
            weights_y = _weights(tap_y[None, :], centre_y[:, None], BICUBIC)
            r, g, b = load_rgb(
                corner + 3 * left, pitch, top + y, length_y, length_x - left, TAPS_X
            )  # fmt: skip
            strip_red = tl.dot(weights_y, r, strip_red)
            strip_green = tl.dot(weights_y, g, strip_green)
            strip_blue = tl.dot(weights_y, b, strip_blue)
            total_y = tl.dot(weights_y, ones_y, total_y)
        # Horizontal pass: accumulate the strip, normalised and centred on zero for float16.
        tap_x = tl.where(left + x < length_x, (left + x + 0.5) * tap_step_x, FAR)
        weights_x = _weights(tap_x[:, None], centre_x[None, :], BICUBIC)
        norm = (1 / tl.maximum(tl.max(total_y, 1), MIN_TOTAL))[:, None]
        red = tl.dot((strip_red * norm - (1024 + 128)).to(tl.float16), weights_x, red)
        green = tl.dot((strip_green * norm - (1024 + 128)).to(tl.float16), weights_x, green)
        blue = tl.dot((strip_blue * norm - (1024 + 128)).to(tl.float16), weights_x, blue)
        total_x = tl.dot(ones_x, weights_x, total_x)
    # Normalise to 0..1; black outside.
    norm = (1 / (tl.maximum(tl.max(total_x, 0), MIN_TOTAL) * 255))[None, :]
    inside = inside_y[:, None] & inside_x[None, :]
    red = tl.where(inside, tl.clamp(red * norm + 128 / 255, 0.0, 1.0), 0.0)
    green = tl.where(inside, tl.clamp(green * norm + 128 / 255, 0.0, 1.0), 0.0)
    blue = tl.where(inside, tl.clamp(blue * norm + 128 / 255, 0.0, 1.0), 0.0)
    return red, green, blue


@triton.jit
def _box_footprint(
    box, full, window, first, size, reverse, BICUBIC: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """`footprint` in the box that is resized to `full` pixels."""
    scale = box.to(tl.float64) / full.to(tl.float64)
    unit = tl.maximum(scale, 1.0)
    reach = (2.0 if BICUBIC else 1.0) * unit
    return footprint(box, 0.0, scale, unit, reach, full, window, first, size, reverse, TILE)


@triton.jit
def _weights(tap, centre, BICUBIC: tl.constexpr):
    """Unnormalised filter at distances in filter units: half of Keys' cubic, or the triangle.

    With a = max(2 - x, 0) and b = max(1 - x, 0), half of Keys' kernel (a = -1/2) is, branch-free,
    a^2 (a - 1) / 4 + b^2 (1/2 - b); the triangle is b.
    """
    x = tl.abs(tap - centre)
    b = tl.maximum(1 - x, 0.0)
    if BICUBIC:
        a = tl.maximum(2 - x, 0.0)
        return (a * a * (a * 0.25 - 0.25) + b * b * (0.5 - b)).to(tl.float16)
    else:
        return b.to(tl.float16)
