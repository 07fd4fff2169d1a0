"""Crop and antialiased resize on the CPU: bytes in, three planes of clamped fixed point out.

Both filters run along contiguous memory. The first combines whole rows of the picture; its result
goes, sixteen rows at a time, through an in-register transpose, so that the second filter, which works
across columns, again combines contiguous rows. The planes that come out are therefore transposed:
`planes[channel, x, y]`, with UNIT for 1.0.

Reads 3 bytes a pixel of the crop and writes 6 a pixel of the view; computes, a value and direction,
4 (bicubic) or 2 (bilinear) multiply-adds times the shrink factor.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.jit import jit
from patchmill.kernels.views.lanes import (
    WIDTH,
    clamp,
    doubled,
    load,
    load_bytes,
    splat,
    store,
    tap,
    transpose_block,
)

UNIT = 255 * 32  # 1.0 in the planes' fixed point: 1/32 of a grey level is resolved
STRIP = 16  # rows filtered before they are transposed, small enough for the first-level cache
CHUNK = 64  # bytes of a row filtered at once, in registers
MOST_FIXED_TAPS = 32  # beyond, truncating many small 16-bit products would show: floats instead


@jit
def pitch_of(size):
    """Elements from one row of a plane to the next: a whole number of two-register steps."""
    return (size + 31) // 32 * 32


@jit
def carve(pool, size):
    """The first `size` bytes of the pool, cache-line aligned, and what is left."""
    size = (size + 63) // 64 * 64
    return pool[:size], pool[size:]


@jit
def resize_bytes(height, width, size):
    """Scratch that `resize` may carve for an image and a view of these sizes."""
    weights = 8 * (4 * (height + width) + 8 * size) + 16 * 8 * size
    strip = 4 * STRIP * (3 * width + 2 * CHUNK)
    across = 4 * (3 * width + CHUNK) * pitch_of(size)
    planes = 4 * 3 * size * pitch_of(size)
    narrow_crop = CHUNK * height
    return weights + strip + across + planes + narrow_crop + 4096


@jit
def resize(image, row, size, bicubic, reverse_x, reverse_y, planes, pool):
    """Fill `planes` (flat int16) with the view's window of the resized box of `image`."""
    most_y = most_taps(row.box_h, row.full_h, bicubic)
    most_x = most_taps(row.box_w, row.full_w, bicubic)
    table, pool = carve(pool, 4 * 8 * size)
    index = table.view(np.int64)
    begin_y, count_y = index[:size], index[size : 2 * size]
    begin_x, count_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, pool = carve(pool, 4 * size * most_y)
    float_y = raw.view(np.float32)
    raw, pool = carve(pool, 4 * size * most_x)
    float_x = raw.view(np.float32)
    taps(row.box_h, row.full_h, row.win_y, size, bicubic, reverse_y, most_y, begin_y, count_y, float_y)
    taps(row.box_w, row.full_w, row.win_x, size, bicubic, reverse_x, most_x, begin_x, count_x, float_x)

    height, width = image.shape[0], image.shape[1]
    pixels, pitch, top, left = image.reshape(height * width * 3), width * 3, row.box_y, row.box_x
    if 3 * row.box_w < CHUNK:
        narrow, pool = carve(pool, CHUNK * row.box_h)
        copy_narrow(pixels, pitch, top, left, row.box_h, row.box_w, narrow)
        pixels, pitch, top, left = narrow, CHUNK, 0, 0

    start, stop = used(begin_x, count_x)
    for j in range(size):
        begin_x[j] -= start
    offset = top * pitch + 3 * (left + start)
    length = 3 * (stop - start)
    if length < CHUNK:  # narrow use of a wide box: step back or forward, never past the box
        back = max(0, min(start, (CHUNK - length + 2) // 3))
        for j in range(size):
            begin_x[j] += back
        offset -= 3 * back
        length = CHUNK
    if stop <= start:
        planes[: 3 * size * pitch_of(size)] = 0
    elif max(most_y, most_x) <= MOST_FIXED_TAPS:
        fixed, pool = carve(pool, 2 * size * most_y)
        fixed_y = fixed.view(np.int16)
        fixed, pool = carve(pool, 2 * size * most_x)
        fixed_x = fixed.view(np.int16)
        doubles_y = fix(float_y, count_y, most_y, fixed_y)
        doubles_x = fix(float_x, count_x, most_x, fixed_x)
        strip, pool = carve(pool, 2 * STRIP * (length + CHUNK))
        across, pool = carve(pool, 2 * (length + CHUNK) * pitch_of(size))
        both(
            pixels, pitch, offset, length, size,
            begin_y, count_y, fixed_y, most_y, doubles_y, begin_x, count_x, fixed_x, most_x, doubles_x,
            strip.view(np.int16), across.view(np.int16), planes, np.int16(UNIT), 1,
        )  # fmt: skip
    else:
        strip, pool = carve(pool, 4 * STRIP * (length + CHUNK))
        across, pool = carve(pool, 4 * (length + CHUNK) * pitch_of(size))
        raw, pool = carve(pool, 4 * 3 * size * pitch_of(size))
        wide = raw.view(np.float32)
        both(
            pixels, pitch, offset, length, size,
            begin_y, count_y, float_y, most_y, 0, begin_x, count_x, float_x, most_x, 0,
            strip.view(np.float32), across.view(np.float32), wide, np.float32(255), 0,
        )  # fmt: skip
        for i in range(3 * size * pitch_of(size)):
            planes[i] = np.int16(wide[i] * np.float32(UNIT / 255) + np.float32(0.5))


@jit
def both(
    pixels, pitch, offset, length, size,
    begin_y, count_y, weight_y, most_y, doubles_y, begin_x, count_x, weight_x, most_x, doubles_x,
    strip, across, planes, unit, halves,
):  # fmt: skip
    """Rows, transpose, columns; in int16 or float32, as the scratch and weights are."""
    strip_pitch, across_pitch = length + CHUNK, pitch_of(size)
    for j in range(0, size, STRIP):
        for i in range(j, min(j + STRIP, size)):
            at = offset + begin_y[i] * pitch
            combine_rows(
                pixels, at, pitch, length, count_y[i], weight_y, i * most_y, doubles_y, halves,
                strip, (i - j) * strip_pitch,
            )  # fmt: skip
        for x in range(0, length, 8):
            for i in range(0, STRIP, 8):
                transpose_block(
                    strip, i * strip_pitch + x, strip_pitch, across, x * across_pitch + j + i, across_pitch
                )
    for i in range(size):
        combine_columns(
            across, 3 * begin_x[i] * across_pitch, across_pitch, size,
            count_x[i], weight_x, i * most_x, doubles_x, halves, planes, i * across_pitch, unit,
        )  # fmt: skip


@jit
def combine_rows(pixels, at, pitch, length, count, weights, w, doubles, halves, strip, to):
    """strip[to:to+length] = the weighted sum of `count` rows of pixels, starting at `at`."""
    bias = splat(weights.dtype.type(halves * count // 2))
    for chunk in range(0, length, CHUNK):
        x = min(chunk, length - CHUNK)  # the last chunk overlaps: never read past the row
        a, b, c, d = bias, bias, bias, bias
        p = at + x
        for k in range(count):
            weight = splat(weights[w + k])
            a = tap(a, load_bytes(pixels, p, bias), weight)
            b = tap(b, load_bytes(pixels, p + WIDTH, bias), weight)
            c = tap(c, load_bytes(pixels, p + 2 * WIDTH, bias), weight)
            d = tap(d, load_bytes(pixels, p + 3 * WIDTH, bias), weight)
            p += pitch
        store(strip, to + x, doubled(a, doubles))
        store(strip, to + x + WIDTH, doubled(b, doubles))
        store(strip, to + x + 2 * WIDTH, doubled(c, doubles))
        store(strip, to + x + 3 * WIDTH, doubled(d, doubles))


@jit
def combine_columns(across, at, pitch, size, count, weights, w, doubles, halves, planes, to, unit):
    """One column of the view in all three planes, clamped to [0, unit]."""
    bias, top = splat(weights.dtype.type(halves * count // 2)), splat(unit)
    plane = size * pitch
    for y in range(0, size, 2 * WIDTH):
        r0, g0, b0, r1, g1, b1 = bias, bias, bias, bias, bias, bias
        p = at + y
        for k in range(count):
            weight = splat(weights[w + k])
            r0 = tap(r0, load(across, p), weight)
            r1 = tap(r1, load(across, p + WIDTH), weight)
            p += pitch
            g0 = tap(g0, load(across, p), weight)
            g1 = tap(g1, load(across, p + WIDTH), weight)
            p += pitch
            b0 = tap(b0, load(across, p), weight)
            b1 = tap(b1, load(across, p + WIDTH), weight)
            p += pitch
        q = to + y
        store(planes, q, clamp(doubled(r0, doubles), top))
        store(planes, q + WIDTH, clamp(doubled(r1, doubles), top))
        store(planes, q + plane, clamp(doubled(g0, doubles), top))
        store(planes, q + plane + WIDTH, clamp(doubled(g1, doubles), top))
        store(planes, q + 2 * plane, clamp(doubled(b0, doubles), top))
        store(planes, q + 2 * plane + WIDTH, clamp(doubled(b1, doubles), top))


# ------------------------------------------------------------------------------------- filter tables


@jit
def most_taps(box, full, bicubic):
    """An upper bound of the taps that one output pixel needs."""
    return int(2.0 * (2.0 if bicubic else 1.0) * max(box / full, 1.0)) + 2


@jit
def taps(box, full, first, size, bicubic, reverse, most, begins, counts, weights):
    """For each pixel of the window: where its taps begin in the box, how many, and their weights.

    The window may reach outside the resized box; such pixels have no taps. With `reverse` the table
    runs backwards, which mirrors the view at no cost.
    """
    scale = box / full
    stretch = max(scale, 1.0)
    support = (2.0 if bicubic else 1.0) * stretch
    for j in range(size):
        i = first + (size - 1 - j if reverse else j)
        begins[j], counts[j] = 0, 0
        if i < 0 or i >= full:
            continue
        centre = (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), box)
        total = 0.0
        for x in range(begin, end):
            total += kernel_value((x - centre + 0.5) / stretch, bicubic)
        for x in range(begin, end):
            value = kernel_value((x - centre + 0.5) / stretch, bicubic)
            weights[j * most + x - begin] = value / total
        begins[j], counts[j] = begin, end - begin


@jit
def kernel_value(x, bicubic):
    """The triangle, or Keys' cubic with a = -0.5, as in PIL and torchvision's antialiased resize."""
    x = abs(x)
    if not bicubic:
        return max(1.0 - x, 0.0)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@jit
def fix(weights, counts, most, fixed):
    """Weights as int16 fractions that sum to one exactly, rounding left over on the largest.

    One is 32768; where a weight exceeds one (bicubic enlargement at a border, where taps with negative
    weights are cut off) it is 16384, and the 1 that is returned says to double the filter's result.
    """
    largest = np.float32(0)
    for j in range(len(counts)):
        for k in range(counts[j]):
            largest = max(largest, weights[j * most + k])
    doubles = 1 if largest > np.float32(1.0001) else 0
    one = 32768 >> doubles
    for j in range(len(counts)):
        rest, best = one, 0
        for k in range(counts[j]):
            weight = int(np.rint(weights[j * most + k] * one))
            fixed[j * most + k] = min(weight, 32767)
            rest -= weight
            if weights[j * most + k] > weights[j * most + best]:
                best = k
        if counts[j]:
            fixed[j * most + best] = min(fixed[j * most + best] + rest, 32767)
    return doubles


@jit
def used(begins, counts):
    """The range of source pixels that any output pixel of the window needs."""
    start, stop = np.int64(1 << 40), np.int64(0)
    for j in range(len(begins)):
        if counts[j]:
            start, stop = min(start, begins[j]), max(stop, begins[j] + counts[j])
    return min(start, stop), stop


@jit
def copy_narrow(pixels, pitch, top, left, height, width, narrow):
    """A crop less than CHUNK bytes wide, copied to rows of CHUNK bytes."""
    for y in range(height):
        at = (top + y) * pitch + 3 * left
        narrow[y * CHUNK : y * CHUNK + 3 * width] = pixels[at : at + 3 * width]
        narrow[y * CHUNK + 3 * width : (y + 1) * CHUNK] = 0
