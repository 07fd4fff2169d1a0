"""`resize` pass on the GPU: crop, antialiased resize, paste, flip, turns, and colour if possible.

A tile of a view is two matrix products on tensor cores, weights_y @ box @ weights_x, with weights
from the `weigh` pass; `box` is the tile's footprint in the image, whose bytes float16 holds
exactly. Each tile reads each byte of its footprint once.
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
from patchmill.kernels.views.gpu.filters import (
    HORIZONTAL,
    VERTICAL,
    find_record,
    load_range,
    load_scales,
    load_weights,
)
from patchmill.kernels.views.gpu.paste import PASTE_FIELDS, paste
from patchmill.kernels.views.gpu.pixels import load_words, unpack_rgb, word_pointers


@triton.jit(
    do_not_specialize=["n_groups", "n_views", "blocks_per_image", "max_tiles", "first_sample"]
)
def resize(
    images,  # [batch, 2] int64: address, row pitch in bytes
    paste_table,  # [batch, PASTE_FIELDS] int64, or empty
    filter_table,  # [batch * n_views, FILTER_FIELDS] int32
    weights,  # float16: records of the `weigh` pass
    rows,  # [batch, n_views, FIELDS] int32
    slots,  # [n_views, SLOT_WORDS] int64
    groups,  # [n_groups, 3] int32
    out,  # [batch elements], dtype of the batch
    planes,  # [elements of a chunk] float16, or empty
    luma_sums,  # [batch * n_views, max_tiles] float32, or empty
    n_groups, n_views, blocks_per_image, max_tiles, first_sample,
    BACKGROUNDS: tl.constexpr,
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """One TILE x TILE tile of a view, from TAPS_Y x TAPS_X source pixels per step.

    Views that need neither blur nor the mean luma of several tiles are finished here.

    Lower bounds. Traffic: 3 bytes per pixel of the crop in; the view, or 6 bytes per pixel for the
    next pass, out. Compute per value, with filter support r (4 bicubic, 2 bilinear), downscaling
    s >= 1 per axis: r s_y s_x + r s_x multiply-adds, and the colour. Actual work, on tensor cores:
    TILE multiply-adds per byte, then TILE per value of the TILE resulting lines.
    """
    # Block to image, view and tile.
    block = tl.program_id(0)
    sample = first_sample + block // blocks_per_image
    view, tile, tiles = fields.locate_block(groups, n_groups, block % blocks_per_image)
    index = sample * n_views + view
    row = rows + index * fields.FIELDS
    offset, in_planes, size, scales = fields.load_slot(slots, view, sample, first_sample, ALIGNED)
    side = tl.cdiv(size, TILE)
    tile_y, tile_x = tile // side * TILE, tile % side * TILE

    # Flip and turns: render the tile reversed along its axes, then transpose it.
    flip, turns = tl.load(row + fields.FLIP) != 0, tl.load(row + fields.TURNS) & 3
    transposed = (turns & 1) == 1
    reverse_x = flip != ((turns == 1) | (turns == 2))
    first_y, first_x = tl.where(transposed, tile_x, tile_y), tl.where(transposed, tile_y, tile_x)
    red, green, blue = _resample_tile(
        images + 2 * sample, row,
        find_record(filter_table, weights, index, VERTICAL, first_y // TILE, TILE),
        find_record(filter_table, weights, index, HORIZONTAL, first_x // TILE, TILE),
        TILE, TAPS_Y, TAPS_X,
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

    # Write for the contrast or blur pass, or to the batch.
    if needs_mean:
        total = tl.sum(tl.where(mask, luma(red, green, blue), 0.0))
        tl.store(luma_sums + index.to(tl.int64) * max_tiles + tile, total)
    if needs_mean | (fields.load_float(row, fields.BLUR_SIGMA) > 0):
        store_planes(red, green, blue, planes, in_planes, pixel, mask, area)
    else:
        encode_view(
            red, green, blue, row, scales, out, offset, pixel, mask, area, CHANNELS_LAST
        )  # fmt: skip


@triton.jit
def _resample_tile(
    image,  # [2] int64: address of uint8 HWC pixels, row pitch in bytes
    row,  # [FIELDS] int32
    record_y, record_x,  # float16, of the tile's rows and columns
    TILE: tl.constexpr, TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr,
):  # fmt: skip
    """A tile of the window of the resized box, 0 to 1; black outside the box."""
    start_y, length_y = load_range(record_y)
    start_x, length_x = load_range(record_x)
    tl.assume(length_y > 0)
    tl.assume(length_x > 0)
    pitch = tl.load(image + 1)
    corner = tl.load(image)
    corner += (tl.load(row + fields.BOX_Y) + start_y) * pitch
    corner += 3 * (tl.load(row + fields.BOX_X) + start_x)
    # The pixels of the first step; each step's words lie `down` after those of the step above it.
    y = tl.arange(0, TAPS_Y)
    pointers, shift, spare = word_pointers(corner, pitch, y, length_x, TAPS_X)
    first, second, third, fourth = load_words(pointers, spare, y < length_y)
    down, words = (TAPS_Y // 4) * pitch, 0
    red = tl.zeros([TILE, TILE], tl.float32)
    green = tl.zeros([TILE, TILE], tl.float32)
    blue = tl.zeros([TILE, TILE], tl.float32)
    for left in range(0, length_x, TAPS_X):
        # Vertical pass over a strip of TAPS_X columns.
        strip_red = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_green = tl.zeros([TILE, TAPS_X], tl.float32)
        strip_blue = tl.zeros([TILE, TAPS_X], tl.float32)
        there = tl.zeros_like(pitch) + words
        for top in range(0, length_y, TAPS_Y):
            weights_y = load_weights(record_y, top, VERTICAL, TAPS_Y, TILE)
            r, g, b = unpack_rgb(first, second, third, fourth, shift, 0, TAPS_X)
            # Prefetch the next step's pixels, below or at the top of the next strip.
            next_top, there = top + TAPS_Y, there + down
            if next_top >= length_y:
                next_top, words = 0, words + 3 * TAPS_X // 4
                there = tl.zeros_like(pitch) + words
            first, second, third, fourth = load_words(
                pointers + there, spare - words, next_top + y < length_y
            )  # fmt: skip
            strip_red = tl.dot(weights_y, r, strip_red)
            strip_green = tl.dot(weights_y, g, strip_green)
            strip_blue = tl.dot(weights_y, b, strip_blue)
        # Horizontal pass: accumulate the strip, normalised and centred on zero for float16.
        weights_x = load_weights(record_x, left, HORIZONTAL, TAPS_X, TILE)
        scale = load_scales(record_y, TILE)[:, None]
        red = tl.dot((strip_red * scale - 128).to(tl.float16), weights_x, red)
        green = tl.dot((strip_green * scale - 128).to(tl.float16), weights_x, green)
        blue = tl.dot((strip_blue * scale - 128).to(tl.float16), weights_x, blue)
    # Scale to 0..1. Rows outside the box are already black.
    scale_x = load_scales(record_x, TILE)
    middle = tl.where(scale_x > 0, 128 / 255, 0.0)[None, :]
    red = tl.clamp(red * scale_x[None, :] + middle, 0.0, 1.0)
    green = tl.clamp(green * scale_x[None, :] + middle, 0.0, 1.0)
    blue = tl.clamp(blue * scale_x[None, :] + middle, 0.0, 1.0)
    return red, green, blue
