"""Crop and antialiased separable resize on the CPU: bytes in, int16 fixed-point planes out.

Both passes run along contiguous memory, LANES rows of the view at a time. The vertical pass
combines rows of the image, in chunks of columns whose bytes are widened to lanes once. Its result
is transposed in registers into a tile, so that the horizontal pass combines contiguous rows too.
The output planes are therefore transposed: `planes[channel, x, y]`, with UNIT for 1.0. Chunks stay
in the L1 cache, tiles in the L2 cache.

Reads 3 bytes per pixel of the crop, writes 6 bytes per pixel of the view. Computes, per value and
direction, 4 (bicubic) or 2 (bilinear) multiply-adds times the downscaling factor, and up to one
more, since all pixels of an axis have the same number of taps. The vertical pass always comes
first: the other order would save only the difference of two small terms, factor_x - factor_y
multiply-adds per value, and would transpose twice.

A multiply-add takes one load, one multiplication and one addition per 16 lanes of AVX2, so the L1
cache's two loads per cycle are the limit: 1/32 cycle each. The passes reach 3/5 of that.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee, jit_inline
from patchmill.kernels.common.simd import (
    BLOCK_COLUMNS,
    LANES,
    clamp,
    load,
    load_deinterleaved,
    multiply_add,
    prefetch,
    shift_left,
    splat,
    splat_at,
    store,
    transpose_tall_block,
)
from patchmill.kernels.views.cpu.taps import (
    BICUBIC,
    BILINEAR,
    filter_taps,
    max_taps,
    normalise_weights,
    quantise_weights,
    source_range,
)

UNIT = 255 * 64  # 1.0 in the planes' fixed point; the sum of two values still fits int16
MIDDLE = 128 << 7  # int16 lanes between the passes hold byte * 128 - MIDDLE
CHUNK = 3 * LANES  # elements of a row filtered at a time, in registers
MAX_FIXED_TAPS = 32  # with more taps, int16 truncation errors would show: float32 instead


@jit_ieee
def plane_pitch(size):
    """Row pitch of a plane in elements: a multiple of 32, the lanes of a vector."""
    return (size + 31) // 32 * 32


@jit_ieee
def carve(scratch, size):
    """Split off the first `size` bytes of the scratch, rounded up to cache lines."""
    size = (size + 63) // 64 * 64
    return scratch[:size], scratch[size:]


@jit_ieee
def resize_bytes(height, width, size):
    """Scratch bytes that `resize` needs for an image and a view of these sizes."""
    tables = 8 * 4 * size + 8 * (4 * (height + width) + 12 * size)
    tile = 4 * LANES * max(3 * width, CHUNK) + CHUNK * height + block_bytes(height)
    planes = 4 * 3 * size * plane_pitch(size)
    return tables + tile + planes + 4096


@jit_ieee
def block_bytes(height):
    """Scratch bytes that `filter_rows` needs for a crop of this height."""
    return 4 * CHUNK * (height + LANES) + 128


@jit_inline
def resize(image, row, size, bicubic, reverse_x, reverse_y, planes, scratch):
    """Fill `planes` (flat int16) with the view's window of the resized box of `image`."""
    resample(
        image, BICUBIC if bicubic else BILINEAR, size, planes, scratch,
        row.box_y, row.box_h, 0.0, row.box_h / row.full_h, row.full_h, row.win_y, reverse_y,
        row.box_x, row.box_w, 0.0, row.box_w / row.full_w, row.full_w, row.win_x, reverse_x,
    )  # fmt: skip


@jit_inline
def resample(
    image, kernel, size, planes, scratch,
    top, height, origin_y, step_y, full_y, first_y, reverse_y,
    left, width, origin_x, step_x, full_x, first_x, reverse_x,
):  # fmt: skip
    """Fill `planes` with filtered samples of the box at (top, left) of the image.

    Per axis, view pixel i is centred at origin + (i + 1/2) step in the box; see `filter_taps`.
    """
    # Filter tables of both axes.
    raw, scratch = carve(scratch, 4 * 4 * size)
    index = as_type(raw, np.int32)
    begin_y, inside_y = index[:size], index[size : 2 * size]
    begin_x, inside_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, scratch = carve(scratch, 4 * 3 * size)
    workspace = as_type(raw, np.float32)
    total_y, total_x = workspace[:size], workspace[size : 2 * size]
    nearest = workspace[2 * size : 3 * size]
    filter_scale_y, filter_scale_x = max(step_y, 1.0), max(step_x, 1.0)
    raw, scratch = carve(scratch, 4 * size * max_taps(filter_scale_y, kernel))
    weight_y = as_type(raw, np.float32)
    raw, scratch = carve(scratch, 4 * size * max_taps(filter_scale_x, kernel))
    weight_x = as_type(raw, np.float32)
    taps_y = filter_taps(
        height, origin_y, step_y, full_y, first_y, size, kernel, filter_scale_y, reverse_y,
        begin_y, inside_y, weight_y, total_y, nearest,
    )  # fmt: skip
    taps_x = filter_taps(
        width, origin_x, step_x, full_x, first_x, size, kernel, filter_scale_x, reverse_x,
        begin_x, inside_x, weight_x, total_x, nearest,
    )  # fmt: skip
    # Crop to the columns that the window needs.
    start, stop = source_range(begin_x, taps_x)
    for j in range(size):
        begin_x[j] -= start
    pixels, pitch, length = image.reshape(image.size), 3 * image.shape[1], 3 * (stop - start)
    offset = top * pitch + 3 * (left + start)
    if length < CHUNK:
        wide_rows, scratch = carve(scratch, CHUNK * height)
        pad_rows(pixels, offset, pitch, length, height, wide_rows)
        pixels, pitch, offset, length = wide_rows, CHUNK, 0, CHUNK

    # Both passes, in int16 if the taps are few enough, else in float32.
    if max(taps_y, taps_x) <= MAX_FIXED_TAPS:
        # Weights exceed 1.0 only if bicubic upscaling drops negative taps at a border.
        shift_y = 1 if kernel == BICUBIC and step_y < 1 else 0
        shift_x = 1 if kernel == BICUBIC and step_x < 1 else 0
        raw, scratch = carve(scratch, 4 * size * taps_y)
        fixed_y = as_type(raw, np.int32)
        raw, scratch = carve(scratch, 4 * size * taps_x)
        fixed_x, rest = as_type(raw, np.int32), as_type(nearest, np.int32)
        quantise_weights(weight_y, total_y, taps_y, shift_y, fixed_y, rest)
        quantise_weights(weight_x, total_x, taps_x, shift_x, fixed_x, rest)
        raw, scratch = carve(scratch, 2 * LANES * length)
        filter_separable(
            pixels, pitch, offset, length, size,
            begin_y, inside_y, taps_y, fixed_y, shift_y,
            begin_x, inside_x, taps_x, fixed_x, shift_x,
            as_type(raw, np.int16), planes, np.int16(UNIT), 1, scratch,
        )  # fmt: skip
    else:
        normalise_weights(weight_y, total_y, taps_y)
        normalise_weights(weight_x, total_x, taps_x)
        raw, scratch = carve(scratch, 4 * LANES * length)
        tile = as_type(raw, np.float32)
        raw, scratch = carve(scratch, 4 * 3 * size * plane_pitch(size))
        float_planes = as_type(raw, np.float32)
        filter_separable(
            pixels, pitch, offset, length, size,
            begin_y, inside_y, taps_y, weight_y, 0, begin_x, inside_x, taps_x, weight_x, 0,
            tile, float_planes, np.float32(255 * 128), 0, scratch,
        )  # fmt: skip
        for i in range(3 * size * plane_pitch(size)):
            planes[i] = np.int16(float_planes[i] * np.float32(UNIT / 255 / 128) + np.float32(0.5))


@jit_ieee
def pad_rows(pixels, offset, pitch, length, height, wide_rows):
    """Copy rows shorter than CHUNK, each zero-padded to CHUNK elements."""
    for y in range(height):
        at, to = offset + y * pitch, y * CHUNK
        for x in range(length):  # not a slice: that compiles error messages, for seconds
            wide_rows[to + x] = pixels[at + x]
        for x in range(length, CHUNK):
            wide_rows[to + x] = 0


@jit_inline
def filter_separable(
    pixels, pitch, offset, length, size,
    begin_y, inside_y, taps_y, weight_y, shift_y, begin_x, inside_x, taps_x, weight_x, shift_x,
    tile, planes, unit, fixed, scratch,
):  # fmt: skip
    """Both passes, LANES rows of the view at a time, in the dtype of the tile.

    `fixed` is 1 for int16, 0 for float32. `shift_y` and `shift_x` restore weights that
    `quantise_weights` halved. `unit` is 1.0 in the output.
    """
    for first in range(0, size, LANES):
        filter_rows(
            pixels, pitch, offset, length, first, size,
            begin_y, inside_y, taps_y, weight_y, shift_y, fixed, tile, scratch,
        )  # fmt: skip
        filter_columns(
            tile, size, begin_x, inside_x, taps_x, weight_x, shift_x, fixed, planes, first, unit
        )


@jit_ieee
def filter_rows(
    pixels, pitch, offset, length, first, size, begins, inside, taps, weights, weight_shift, fixed,
    tile, scratch,
):  # fmt: skip
    """Vertical pass of rows `first`, ... `first` + 31 of the view, transposed into `tile`.

    Element x of row i is written to tile[x * LANES + i - first]. `offset` is that of the crop's
    first element. Works on a chunk of columns at a time, so that everything except the tile stays
    in the L1 cache. Tap k of row i has weight weights[k * size + i]. Rows outside the window are
    black.
    """
    stop = min(first + LANES, size)
    top, bottom = source_range(begins[first:stop], taps)
    raw, scratch = carve(scratch, tile.itemsize * CHUNK * LANES)
    strip = as_type(raw, tile.dtype)
    block = as_type(scratch[: tile.itemsize * CHUNK * (bottom - top)], tile.dtype)
    for chunk in range(0, length, CHUNK):
        x = min(chunk, length - CHUNK)  # overlaps the previous chunk: no reads past the crop
        widen(pixels, offset + top * pitch + x, pitch, bottom - top, block)
        combine_rows(
            block, top, first, stop, size, begins, inside, taps, weights, weight_shift, fixed, strip
        )
        for j in range(0, CHUNK, BLOCK_COLUMNS):  # of 32 columns, the even ones come first
            part = j % LANES // BLOCK_COLUMNS
            column = x + j // LANES * LANES + part % 2 * (LANES // 2) + part // 2
            transpose_tall_block(strip, j, CHUNK, tile, column * LANES, 2 * LANES)


@jit_ieee
def widen(pixels, start, pitch, rows, block):
    """Copy CHUNK bytes of each row to lanes of the block, in the order of `load_deinterleaved`."""
    like = splat(block.dtype.type(0))
    for y in range(rows):
        at, to = start + y * pitch, y * CHUNK
        prefetch(pixels, at + 2 * CHUNK)
        for x in range(0, CHUNK, LANES):
            store(block, to + x, load_deinterleaved(pixels, at + x, like))


@jit_ieee
def combine_rows(
    block, top, first, stop, size, begins, inside, taps, weights, weight_shift, fixed, strip
):
    """Write filtered rows of the block, which starts at row `top` of the crop, to the strip."""
    for i in range(first, stop):
        bias = taps // 2 if inside[i] else -(MIDDLE >> weight_shift)
        a = splat(strip.dtype.type(fixed * bias))
        b, c, source, tap = a, a, (begins[i] - top) * CHUNK, i
        for _ in range(taps):
            weight = splat_at(weights, tap)
            a = multiply_add(a, load(block, source, a), weight)
            b = multiply_add(b, load(block, source + LANES, b), weight)
            c = multiply_add(c, load(block, source + 2 * LANES, c), weight)
            source += CHUNK
            tap += size
        to = (i - first) * CHUNK
        store(strip, to, shift_left(a, weight_shift))
        store(strip, to + LANES, shift_left(b, weight_shift))
        store(strip, to + 2 * LANES, shift_left(c, weight_shift))


@jit_ieee
def filter_columns(
    tile, size, begins, inside, taps, weights, weight_shift, fixed, planes, to, unit
):
    """Horizontal pass of LANES rows of the view, clamped to [0, unit], in all planes.

    Combines columns of the tile as `filter_rows` does rows. Column i is written to planes[to:],
    `i` pitches further.
    """
    pitch, top = plane_pitch(size), splat(unit)
    plane = size * pitch
    for i in range(size):
        bias = taps // 2 + (MIDDLE // 2 >> weight_shift) if inside[i] else 0
        r = splat(tile.dtype.type(fixed * bias))
        g, b, source, tap = r, r, begins[i] * (3 * LANES), i
        for _ in range(taps):
            weight = splat_at(weights, tap)
            r = multiply_add(r, load(tile, source, r), weight)
            g = multiply_add(g, load(tile, source + LANES, g), weight)
            b = multiply_add(b, load(tile, source + 2 * LANES, b), weight)
            source += 3 * LANES
            tap += size
        target = to + i * pitch
        store(planes, target, clamp(shift_left(r, weight_shift), top))
        store(planes, target + plane, clamp(shift_left(g, weight_shift), top))
        store(planes, target + 2 * plane, clamp(shift_left(b, weight_shift), top))
