"""Crop and antialiased resize on the CPU: bytes in, three planes of clamped fixed point out.

Both filters run along contiguous memory. The first combines whole rows of the picture; its result
goes, thirty-two rows at a time, through an in-register transpose, so that the second filter, which works
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
    splat,
    store,
    tap,
    transpose_block,
)

UNIT = 255 * 32  # 1.0 in the planes' fixed point: 1/32 of a grey level is resolved
STRIP = 32  # rows filtered before they are transposed: a whole cache line of each column
CHUNK = 64  # numbers of a row filtered at once, in registers
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
    """Scratch that `resize` carves for an image and a view of these sizes."""
    narrow = CHUNK * height
    tables = 4 * 8 * size + 6 * (4 * (height + width) + 12 * size)
    strip = 4 * STRIP * (3 * width + 2 * CHUNK)
    across = 4 * (3 * width + 2 * CHUNK) * pitch_of(size)
    planes = 4 * 3 * size * pitch_of(size)
    return narrow + tables + strip + across + planes + 4096


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
    start, stop = used(begin_x, count_x)
    begin_x -= start
    pixels, pitch, length = image.reshape(image.size), 3 * image.shape[1], 3 * (stop - start)
    offset = row.box_y * pitch + 3 * (row.box_x + start)
    if length < CHUNK:
        narrow, pool = carve(pool, CHUNK * row.box_h)
        for y in range(row.box_h):
            at = offset + y * pitch
            narrow[y * CHUNK : y * CHUNK + length] = pixels[at : at + length]
            narrow[y * CHUNK + length : (y + 1) * CHUNK] = 0
        pixels, pitch, offset, length = narrow, CHUNK, 0, CHUNK

    if max(most_y, most_x) <= MOST_FIXED_TAPS:
        raw, pool = carve(pool, 2 * size * most_y)
        fixed_y = raw.view(np.int16)
        raw, pool = carve(pool, 2 * size * most_x)
        fixed_x = raw.view(np.int16)
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
        exact = raw.view(np.float32)
        both(
            pixels, pitch, offset, length, size,
            begin_y, count_y, float_y, most_y, 0, begin_x, count_x, float_x, most_x, 0,
            strip.view(np.float32), across.view(np.float32), exact, np.float32(255 * 128), 0,
        )  # fmt: skip
        for i in range(3 * size * pitch_of(size)):
            planes[i] = np.int16(exact[i] * np.float32(UNIT / 255 / 128) + np.float32(0.5))


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
            combine_rows(
                pixels, offset + begin_y[i] * pitch, pitch, length, count_y[i], weight_y, i * most_y,
                doubles_y, halves, strip, (i - j) * strip_pitch,
            )  # fmt: skip
        for x in range(0, length, 8):
            for i in range(0, STRIP, 8):
                at, to = i * strip_pitch + x, x * across_pitch + j + i
                transpose_block(strip, at, strip_pitch, across, to, across_pitch)
    for i in range(size):
        combine_columns(
            across, 3 * begin_x[i] * across_pitch, across_pitch, size, count_x[i], weight_x, i * most_x,
            doubles_x, halves, planes, i * across_pitch, unit,
        )  # fmt: skip


@jit
def combine_rows(pixels, at, pitch, length, count, weights, w, doubles, halves, strip, to):
    """strip[to:to+length] = the weighted sum of `count` rows of pixels, starting at `at`."""
    bias = splat(weights.dtype.type(halves * count // 2))
    for chunk in range(0, length, CHUNK):
        x = min(chunk, length - CHUNK)  # the last chunk overlaps: never read past the box
        a, b, c, d = bias, bias, bias, bias
        p = at + x
        for k in range(count):
            weight = splat(weights[w + k])
            a = tap(a, load(pixels, p, bias), weight)
            b = tap(b, load(pixels, p + WIDTH, bias), weight)
            c = tap(c, load(pixels, p + 2 * WIDTH, bias), weight)
            d = tap(d, load(pixels, p + 3 * WIDTH, bias), weight)
            p += pitch
        q = to + x
        store(strip, q, doubled(a, doubles))
        store(strip, q + WIDTH, doubled(b, doubles))
        store(strip, q + 2 * WIDTH, doubled(c, doubles))
        store(strip, q + 3 * WIDTH, doubled(d, doubles))


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
            r0 = tap(r0, load(across, p, bias), weight)
            r1 = tap(r1, load(across, p + WIDTH, bias), weight)
            p += pitch
            g0 = tap(g0, load(across, p, bias), weight)
            g1 = tap(g1, load(across, p + WIDTH, bias), weight)
            p += pitch
            b0 = tap(b0, load(across, p, bias), weight)
            b1 = tap(b1, load(across, p + WIDTH, bias), weight)
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
    step = np.float32(1.0 / stretch)
    for j in range(size):
        i = first + (size - 1 - j if reverse else j)
        begins[j], counts[j] = 0, 0
        if i < 0 or i >= full:
            continue
        centre = (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), box)
        row = weights[j * most : j * most + end - begin]
        nearest = np.float32((begin - centre + 0.5) / stretch)
        total = np.float32(0)
        for k in range(end - begin):
            row[k] = cubic(nearest + k * step) if bicubic else triangle(nearest + k * step)
            total += row[k]
        row *= np.float32(1) / total
        begins[j], counts[j] = begin, end - begin


@jit
def triangle(x):
    return max(np.float32(1) - abs(x), np.float32(0))


@jit
def cubic(x):
    """Keys' kernel with a = -0.5, as in PIL and torchvision's antialiased resize."""
    x = abs(np.float32(x))
    near = (np.float32(1.5) * x - np.float32(2.5)) * x * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return near if x < np.float32(1) else (far if x < np.float32(2) else np.float32(0))


@jit
def fix(weights, counts, most, fixed):
    """Weights as int16 fractions that sum to one exactly, rounding left over on the middle one.

    One is 32768; where a weight exceeds one (bicubic enlargement at a border, where taps with negative
    weights are cut off) it is 16384, and the 1 that is returned says to double the filter's result.
    """
    largest = np.float32(0)
    for j in range(len(counts)):
        for weight in weights[j * most : j * most + counts[j]]:
            largest = max(largest, weight)
    doubles = 1 if largest > np.float32(1.0001) else 0
    one = np.int32(32768 >> doubles)
    for j in range(len(counts)):
        if counts[j] == 0:
            continue
        exact, rounded = weights[j * most : j * most + counts[j]], fixed[j * most : j * most + counts[j]]
        rest = one
        for k in range(counts[j]):
            weight = np.int32(np.rint(exact[k] * np.float32(one)))
            rounded[k] = min(weight, np.int32(32767))
            rest -= weight
        middle = counts[j] // 2
        rounded[middle] = min(rounded[middle] + rest, 32767)
    return doubles


@jit
def used(begins, counts):
    """The range of source pixels that any output pixel of the window needs."""
    start, stop = np.int64(1 << 40), np.int64(0)
    for j in range(len(begins)):
        if counts[j]:
            start, stop = min(start, begins[j]), max(stop, begins[j] + counts[j])
    return min(start, stop), stop
