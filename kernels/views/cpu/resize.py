"""Crop and antialiased resize on the CPU: bytes in, three planes of clamped fixed point out.

Both filters run along contiguous memory. The first combines rows of the picture; its result goes,
a strip at a time, through an in-register transpose, so that the second filter, which works across
columns, again combines contiguous rows. The planes that come out are therefore transposed:
`planes[channel, x, y]`, with UNIT for 1.0.

Reads 3 bytes a pixel of the crop and writes 6 a pixel of the view; computes, a value and direction,
4 (bicubic) or 2 (bilinear) multiply-adds times the shrink factor.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.kernels.common.simd import (
    TALL,
    WIDE,
    WIDTH,
    clamp,
    doubled,
    load,
    splat,
    store,
    tap,
    transpose_block,
)

UNIT = 255 * 64  # 1.0 in the planes' fixed point; the sum of two values still fits 16 bits
STRIP = 16  # rows that are filtered before they are transposed: they stay in the nearest cache
CHUNK = 2 * WIDTH  # numbers of a row filtered at once, in registers
BILINEAR, BICUBIC, SPLINE = 0, 1, 2  # the filters, of 2, 4 and 4 pixels
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
    tables = 8 * 4 * size + 6 * (4 * (height + width) + 12 * size)
    lines = 4 * (padded(3 * width) + CHUNK) * (STRIP + pitch_of(size)) + CHUNK * height
    planes = 4 * 3 * size * pitch_of(size)
    return tables + lines + planes + 4096


@jit
def resize(image, row, size, bicubic, reverse_x, reverse_y, planes, pool):
    """Fill `planes` (flat int16) with the view's window of the resized box of `image`."""
    sample(
        image, BICUBIC if bicubic else BILINEAR, size, planes, pool,
        row.box_y, row.box_h, 0.0, row.box_h / row.full_h, row.full_h, row.win_y, reverse_y,
        row.box_x, row.box_w, 0.0, row.box_w / row.full_w, row.full_w, row.win_x, reverse_x,
    )  # fmt: skip


@jit
def sample(
    image, kernel, size, planes, pool,
    top, height, origin_y, step_y, full_y, first_y, reverse_y,
    left, width, origin_x, step_x, full_x, first_x, reverse_x,
):  # fmt: skip
    """Fill `planes` with samples of a part of the image; of it and of places, see `taps`."""
    raw, pool = carve(pool, 4 * 4 * size)
    index = raw.view(np.int32)
    begin_y, count_y = index[:size], index[size : 2 * size]
    begin_x, count_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, pool = carve(pool, 4 * 2 * size)
    spare = raw.view(np.float32)
    unit_y, unit_x = max(step_y, 1.0), max(step_x, 1.0)
    raw, pool = carve(pool, 4 * size * most_taps(unit_y, kernel))
    float_y = raw.view(np.float32)
    raw, pool = carve(pool, 4 * size * most_taps(unit_x, kernel))
    float_x = raw.view(np.float32)
    most_y = taps(
        height, origin_y, step_y, full_y, first_y, size, kernel, unit_y, reverse_y,
        begin_y, count_y, float_y, spare,
    )  # fmt: skip
    most_x = taps(
        width, origin_x, step_x, full_x, first_x, size, kernel, unit_x, reverse_x,
        begin_x, count_x, float_x, spare,
    )  # fmt: skip
    start, stop = used(begin_x, count_x)
    for j in range(size):
        begin_x[j] -= start
    pixels, pitch, length = image.reshape(image.size), 3 * image.shape[1], 3 * (stop - start)
    offset = top * pitch + 3 * (left + start)
    if length < CHUNK:
        narrow, pool = carve(pool, CHUNK * height)
        widen(pixels, offset, pitch, length, height, narrow)
        pixels, pitch, offset, length = narrow, CHUNK, 0, CHUNK
    room = padded(length)

    if max(most_y, most_x) <= MOST_FIXED_TAPS:
        raw, pool = carve(pool, 2 * size * most_y)
        fixed_y = raw.view(np.int16)
        raw, pool = carve(pool, 2 * size * most_x)
        fixed_x = raw.view(np.int16)
        doubles_y = fix(float_y, count_y, most_y, fixed_y, spare.view(np.int32))
        doubles_x = fix(float_x, count_x, most_x, fixed_x, spare.view(np.int32))
        strip, pool = carve(pool, 2 * STRIP * room)
        across, pool = carve(pool, 2 * room * pitch_of(size))
        both(
            pixels, pitch, offset, length, size,
            begin_y, count_y, fixed_y, doubles_y, begin_x, count_x, fixed_x, doubles_x,
            strip.view(np.int16), across.view(np.int16),
            planes, np.int16(UNIT), 1,
        )  # fmt: skip
    else:
        strip, pool = carve(pool, 4 * STRIP * room)
        across, pool = carve(pool, 4 * room * pitch_of(size))
        raw, pool = carve(pool, 4 * 3 * size * pitch_of(size))
        exact = raw.view(np.float32)
        both(
            pixels, pitch, offset, length, size,
            begin_y, count_y, float_y, 0, begin_x, count_x, float_x, 0,
            strip.view(np.float32), across.view(np.float32),
            exact, np.float32(255 * 128), 0,
        )  # fmt: skip
        for i in range(3 * size * pitch_of(size)):
            planes[i] = np.int16(exact[i] * np.float32(UNIT / 255 / 128) + np.float32(0.5))


@jit
def widen(pixels, offset, pitch, length, height, narrow):
    """Copy rows of less than a CHUNK, each to a CHUNK of its own."""
    for y in range(height):
        at = offset + y * pitch
        narrow[y * CHUNK : y * CHUNK + length] = pixels[at : at + length]
        narrow[y * CHUNK + length : (y + 1) * CHUNK] = 0


@jit
def both(
    pixels, pitch, offset, length, size,
    begin_y, count_y, weight_y, doubles_y, begin_x, count_x, weight_x, doubles_x,
    strip, across, planes, unit, halves,
):  # fmt: skip
    """Rows, transpose, columns; in int16 or float32, as the scratch and weights are."""
    strip_pitch, across_pitch = padded(length), pitch_of(size)
    for first in range(0, size, STRIP):
        for i in range(first, min(first + STRIP, size)):
            combine_rows(
                pixels, offset + begin_y[i] * pitch, pitch, length, count_y[i], weight_y, i, size,
                doubles_y, halves, strip, (i - first) * strip_pitch,
            )  # fmt: skip
        turn(strip, strip_pitch, across, across_pitch, first)
    for i in range(size):
        combine_columns(
            across, 3 * begin_x[i] * across_pitch, across_pitch, size, count_x[i], weight_x, i,
            doubles_x, halves, planes, i * across_pitch, unit,
        )  # fmt: skip


@jit
def padded(length):
    """Room for a row of `length` numbers, filtered in whole chunks."""
    return (length + CHUNK - 1) // CHUNK * CHUNK


@jit
def combine_rows(pixels, at, pitch, length, count, weights, w, step, doubles, halves, strip, to):
    """The weighted sum of `count` rows of bytes, starting at `at`."""
    bias = splat(weights.dtype.type(halves * count // 2))
    pairs = length // (2 * CHUNK) * (2 * CHUNK)
    for x in range(0, pairs, 2 * CHUNK):
        a, b, c, d = bias, bias, bias, bias
        p, v = at + x, w
        for _ in range(count):
            weight = splat(weights[v])
            a = tap(a, load(pixels, p, bias), weight)
            b = tap(b, load(pixels, p + WIDTH, bias), weight)
            c = tap(c, load(pixels, p + 2 * WIDTH, bias), weight)
            d = tap(d, load(pixels, p + 3 * WIDTH, bias), weight)
            p += pitch
            v += step
        store(strip, to + x, doubled(a, doubles))
        store(strip, to + x + WIDTH, doubled(b, doubles))
        store(strip, to + x + 2 * WIDTH, doubled(c, doubles))
        store(strip, to + x + 3 * WIDTH, doubled(d, doubles))
    for chunk in range(pairs, length, CHUNK):
        x = min(chunk, length - CHUNK)  # the last chunk overlaps: never read past the box
        a, b = bias, bias
        p, v = at + x, w
        for _ in range(count):
            weight = splat(weights[v])
            a = tap(a, load(pixels, p, bias), weight)
            b = tap(b, load(pixels, p + WIDTH, bias), weight)
            p += pitch
            v += step
        store(strip, to + x, doubled(a, doubles))
        store(strip, to + x + WIDTH, doubled(b, doubles))


@jit
def turn(strip, pitch, across, across_pitch, first):
    """Lay the strip's rows on their side, as columns `first` and on of `across`."""
    for x in range(0, pitch, WIDE):
        for i in range(0, STRIP, TALL):
            to = x * across_pitch + first + i
            transpose_block(strip, i * pitch + x, pitch, across, to, across_pitch)


@jit
def combine_columns(across, at, pitch, size, count, weights, w, doubles, halves, planes, to, unit):
    """One column of the view in all three planes, clamped to [0, unit]."""
    bias, top = splat(weights.dtype.type(halves * count // 2)), splat(unit)
    plane, again = size * pitch, doubles + halves  # planes have twice the scale that taps leave
    for y in range(0, size, WIDTH):
        r, g, b = bias, bias, bias
        p, v = at + y, w
        for _ in range(count):
            weight = splat(weights[v])
            r = tap(r, load(across, p, bias), weight)
            g = tap(g, load(across, p + pitch, bias), weight)
            b = tap(b, load(across, p + 2 * pitch, bias), weight)
            p += 3 * pitch
            v += size
        q = to + y
        store(planes, q, clamp(doubled(r, again), top))
        store(planes, q + plane, clamp(doubled(g, again), top))
        store(planes, q + 2 * plane, clamp(doubled(b, again), top))


# ------------------------------------------------------------------------------------ filter tables


@jit
def most_taps(unit, kernel):
    """An upper bound of the taps that one output pixel needs."""
    return int(2.0 * (1.0 if kernel == BILINEAR else 2.0) * unit) + 2


@jit
def taps(
    length, origin, scale, full, first, size, kernel, unit, reverse, begins, counts, weights, spare
):  # fmt: skip
    """For each pixel of the window: where its taps begin in the line, how many, and their weights.

    The line has `length` pixels; the middle of place i lies in it at origin + (i + 1/2) scale, and
    the kernel counts in units of so many pixels. Weight k of pixel j is weights[k * size + j], so
    that all pixels are computed side by side; returns the most taps of any pixel. The window may
    reach beyond the places 0 to full - 1; such pixels have no taps. With `reverse` the table runs
    backwards, which mirrors the view at no cost.
    """
    nearest, total = spare[:size], spare[size : 2 * size]
    support = (1.0 if kernel == BILINEAR else 2.0) * unit
    most = 0
    for j in range(size):
        i = first + (size - 1 - j if reverse else j)
        centre = origin + (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), length)
        inside = 0 <= i and i < full
        begins[j], counts[j] = (begin, end - begin) if inside else (0, 0)
        nearest[j], total[j] = (begin - centre + 0.5) / unit, 0
        most = max(most, counts[j])
    step = np.float32(1.0 / unit)
    for k in range(most):
        row, shift, position = weights[k * size : (k + 1) * size], np.float32(k) * step, np.int32(k)
        if kernel == BICUBIC:
            for j in range(size):
                value = cubic(nearest[j] + shift)
                row[j] = value if position < counts[j] else np.float32(0)
                total[j] += row[j]
        elif kernel == SPLINE:
            for j in range(size):
                value = spline(nearest[j] + shift)
                row[j] = value if position < counts[j] else np.float32(0)
                total[j] += row[j]
        else:
            for j in range(size):
                value = triangle(nearest[j] + shift)
                row[j] = value if position < counts[j] else np.float32(0)
                total[j] += row[j]
    for j in range(size):
        total[j] = np.float32(1) / total[j] if counts[j] > 0 else np.float32(0)
    for k in range(most):
        row = weights[k * size : (k + 1) * size]
        for j in range(size):
            row[j] *= total[j]
    return most


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
def spline(x):
    """The cubic B-spline, times six."""
    x = abs(np.float32(x))
    near, far = max(np.float32(1) - x, np.float32(0)), max(np.float32(2) - x, np.float32(0))
    return far * far * far - np.float32(4) * near * near * near


@jit
def fix(weights, counts, most, fixed, spare):
    """Weights as int16 fractions that sum to one exactly, rounding left over on the middle one.

    One is 32768; where a weight exceeds one (bicubic enlargement at a border, where taps with
    negative weights are cut off) it is 16384, and the 1 that is returned says to double the
    filter's result.
    """
    size = len(counts)
    largest = np.float32(0)
    for i in range(most * size):
        largest = max(largest, weights[i])
    doubles = 1 if largest > np.float32(1.0001) else 0
    one = np.int32(32768 >> doubles)
    rest = spare[:size]
    rest[:] = one
    for k in range(most):
        exact, rounded = weights[k * size : (k + 1) * size], fixed[k * size : (k + 1) * size]
        for j in range(size):
            weight = np.int32(np.rint(exact[j] * np.float32(one)))
            rounded[j] = min(weight, np.int32(32767))
            rest[j] -= weight
    for j in range(size):
        if counts[j] > 0:
            middle = counts[j] // 2 * size + j
            fixed[middle] = min(fixed[middle] + rest[j], 32767)
    return doubles


@jit
def used(begins, counts):
    """The range of source pixels that any output pixel of the window needs."""
    start, stop = np.int64(1 << 40), np.int64(0)
    for j in range(len(begins)):
        if counts[j] > 0:
            start, stop = min(start, begins[j]), max(stop, begins[j] + counts[j])
    return min(start, stop), stop
