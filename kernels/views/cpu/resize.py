"""Crop and antialiased separable resize on the CPU: bytes in, int16 fixed-point planes out.

Both passes run along contiguous memory. The vertical pass combines rows of the image. Its result is
transposed in registers, a strip at a time, so that the horizontal pass combines contiguous rows
too. The output planes are therefore transposed: `planes[channel, x, y]`, with UNIT for 1.0.

Reads 3 bytes per pixel of the crop, writes 6 bytes per pixel of the view. Computes, per value and
direction, 4 (bicubic) or 2 (bilinear) multiply-adds times the downscaling factor.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit, jit_ieee, jit_inline
from patchmill.kernels.common.simd import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    LANES,
    clamp,
    load,
    multiply_add,
    shift_left,
    splat,
    store,
    transpose_block,
)

UNIT = 255 * 64  # 1.0 in the planes' fixed point; the sum of two values still fits int16
STRIP = 16  # rows filtered before a transpose: a strip stays in the L1 cache
CHUNK = 2 * LANES  # elements of a row filtered at a time, in registers
BILINEAR, BICUBIC, SPLINE = 0, 1, 2  # filter kernels with a support of 2, 4 and 4 pixels
MAX_FIXED_TAPS = 32  # with more taps, int16 truncation errors would show: float32 instead


@jit
def plane_pitch(size):
    """Row pitch of a plane in elements: a multiple of 32, the lanes of a vector."""
    return (size + 31) // 32 * 32


@jit
def carve(scratch, size):
    """Split off the first `size` bytes of the scratch, rounded up to cache lines."""
    size = (size + 63) // 64 * 64
    return scratch[:size], scratch[size:]


@jit
def resize_bytes(height, width, size):
    """Scratch bytes that `resize` needs for an image and a view of these sizes."""
    tables = 8 * 4 * size + 6 * (4 * (height + width) + 12 * size)
    lines = 4 * (padded_length(3 * width) + CHUNK) * (STRIP + plane_pitch(size)) + CHUNK * height
    planes = 4 * 3 * size * plane_pitch(size)
    return tables + lines + planes + 4096


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
    begin_y, count_y = index[:size], index[size : 2 * size]
    begin_x, count_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, scratch = carve(scratch, 4 * 2 * size)
    workspace = as_type(raw, np.float32)
    filter_scale_y, filter_scale_x = max(step_y, 1.0), max(step_x, 1.0)
    raw, scratch = carve(scratch, 4 * size * max_taps(filter_scale_y, kernel))
    float_y = as_type(raw, np.float32)
    raw, scratch = carve(scratch, 4 * size * max_taps(filter_scale_x, kernel))
    float_x = as_type(raw, np.float32)
    max_taps_y = filter_taps(
        height, origin_y, step_y, full_y, first_y, size, kernel, filter_scale_y, reverse_y,
        begin_y, count_y, float_y, workspace,
    )  # fmt: skip
    max_taps_x = filter_taps(
        width, origin_x, step_x, full_x, first_x, size, kernel, filter_scale_x, reverse_x,
        begin_x, count_x, float_x, workspace,
    )  # fmt: skip
    # Crop to the columns that the window needs.
    start, stop = source_range(begin_x, count_x)
    for j in range(size):
        begin_x[j] -= start
    pixels, pitch, length = image.reshape(image.size), 3 * image.shape[1], 3 * (stop - start)
    offset = top * pitch + 3 * (left + start)
    if length < CHUNK:
        wide_rows, scratch = carve(scratch, CHUNK * height)
        pad_rows(pixels, offset, pitch, length, height, wide_rows)
        pixels, pitch, offset, length = wide_rows, CHUNK, 0, CHUNK
    strip_pitch = padded_length(length)

    # Both passes, in int16 if the taps are few enough, else in float32.
    if max(max_taps_y, max_taps_x) <= MAX_FIXED_TAPS:
        raw, scratch = carve(scratch, 2 * size * max_taps_y)
        fixed_y = as_type(raw, np.int16)
        raw, scratch = carve(scratch, 2 * size * max_taps_x)
        fixed_x = as_type(raw, np.int16)
        shift_y = quantise_weights(
            float_y, count_y, max_taps_y, fixed_y, as_type(workspace, np.int32)
        )
        shift_x = quantise_weights(
            float_x, count_x, max_taps_x, fixed_x, as_type(workspace, np.int32)
        )
        strip, scratch = carve(scratch, 2 * STRIP * strip_pitch)
        transposed, scratch = carve(scratch, 2 * strip_pitch * plane_pitch(size))
        filter_separable(
            pixels, pitch, offset, length, size,
            begin_y, count_y, fixed_y, shift_y, begin_x, count_x, fixed_x, shift_x,
            as_type(strip, np.int16), as_type(transposed, np.int16),
            planes, np.int16(UNIT), 1,
        )  # fmt: skip
    else:
        strip, scratch = carve(scratch, 4 * STRIP * strip_pitch)
        transposed, scratch = carve(scratch, 4 * strip_pitch * plane_pitch(size))
        raw, scratch = carve(scratch, 4 * 3 * size * plane_pitch(size))
        float_planes = as_type(raw, np.float32)
        filter_separable(
            pixels, pitch, offset, length, size,
            begin_y, count_y, float_y, 0, begin_x, count_x, float_x, 0,
            as_type(strip, np.float32), as_type(transposed, np.float32),
            float_planes, np.float32(255 * 128), 0,
        )  # fmt: skip
        for i in range(3 * size * plane_pitch(size)):
            planes[i] = np.int16(float_planes[i] * np.float32(UNIT / 255 / 128) + np.float32(0.5))


@jit
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
    begin_y, count_y, weight_y, shift_y, begin_x, count_x, weight_x, shift_x,
    strip, transposed, planes, unit, pass_shift,
):  # fmt: skip
    """Vertical pass, transpose, horizontal pass, in the dtype of the weights (int16 or float32).

    `pass_shift` is the bits of scale that a pass loses: 1 for int16, 0 for float32. `shift_y` and
    `shift_x` restore weights that `quantise_weights` halved. `unit` is 1.0 in the output.
    """
    strip_pitch, transposed_pitch = padded_length(length), plane_pitch(size)
    for first in range(0, size, STRIP):
        for i in range(first, min(first + STRIP, size)):
            combine_rows(
                pixels, offset + begin_y[i] * pitch, pitch, length, count_y[i], weight_y, i, size,
                shift_y, pass_shift, strip, (i - first) * strip_pitch,
            )  # fmt: skip
        transpose_strip(strip, strip_pitch, transposed, transposed_pitch, first)
    for i in range(size):
        combine_columns(
            transposed, 3 * begin_x[i] * transposed_pitch, transposed_pitch, size, count_x[i],
            weight_x, i, shift_x, pass_shift, planes, i * transposed_pitch, unit,
        )  # fmt: skip


@jit
def padded_length(length):
    """Row length rounded up to whole chunks."""
    return (length + CHUNK - 1) // CHUNK * CHUNK


@jit
def combine_rows(
    pixels, start, pitch, length, count, weights, first_tap, step, weight_shift, pass_shift,
    strip, to,
):  # fmt: skip
    """Weighted sum of `count` rows of bytes from offset `start`, written to `strip[to:]`.

    Row k has weight weights[first_tap + k * step].
    """
    bias = splat(weights.dtype.type(pass_shift * count // 2))
    pairs = length // (2 * CHUNK) * (2 * CHUNK)
    for x in range(0, pairs, 2 * CHUNK):
        a, b, c, d = bias, bias, bias, bias
        source, tap = start + x, first_tap
        for _ in range(count):
            weight = splat(weights[tap])
            a = multiply_add(a, load(pixels, source, bias), weight)
            b = multiply_add(b, load(pixels, source + LANES, bias), weight)
            c = multiply_add(c, load(pixels, source + 2 * LANES, bias), weight)
            d = multiply_add(d, load(pixels, source + 3 * LANES, bias), weight)
            source += pitch
            tap += step
        store(strip, to + x, shift_left(a, weight_shift))
        store(strip, to + x + LANES, shift_left(b, weight_shift))
        store(strip, to + x + 2 * LANES, shift_left(c, weight_shift))
        store(strip, to + x + 3 * LANES, shift_left(d, weight_shift))
    for chunk in range(pairs, length, CHUNK):
        x = min(chunk, length - CHUNK)  # overlaps the previous chunk: no reads past the box
        a, b = bias, bias
        source, tap = start + x, first_tap
        for _ in range(count):
            weight = splat(weights[tap])
            a = multiply_add(a, load(pixels, source, bias), weight)
            b = multiply_add(b, load(pixels, source + LANES, bias), weight)
            source += pitch
            tap += step
        store(strip, to + x, shift_left(a, weight_shift))
        store(strip, to + x + LANES, shift_left(b, weight_shift))


@jit
def transpose_strip(strip, pitch, transposed, transposed_pitch, first):
    """Transpose the strip's rows into columns `first`, `first` + 1, ... of `transposed`."""
    for x in range(0, pitch, BLOCK_COLUMNS):
        for i in range(0, STRIP, BLOCK_ROWS):
            to = x * transposed_pitch + first + i
            transpose_block(strip, i * pitch + x, pitch, transposed, to, transposed_pitch)


@jit
def combine_columns(
    transposed, start, pitch, size, count, weights, first_tap, weight_shift, pass_shift,
    planes, to, unit,
):  # fmt: skip
    """One column of the view in all three planes, clamped to [0, unit], written to `planes[to:]`.

    Sums `count` transposed columns from offset `start`; see `combine_rows`.
    """
    bias, top = splat(weights.dtype.type(pass_shift * count // 2)), splat(unit)
    # Planes have twice the scale that two int16 passes leave.
    plane, shift = size * pitch, weight_shift + pass_shift
    for y in range(0, size, LANES):
        r, g, b = bias, bias, bias
        source, tap = start + y, first_tap
        for _ in range(count):
            weight = splat(weights[tap])
            r = multiply_add(r, load(transposed, source, bias), weight)
            g = multiply_add(g, load(transposed, source + pitch, bias), weight)
            b = multiply_add(b, load(transposed, source + 2 * pitch, bias), weight)
            source += 3 * pitch
            tap += size
        target = to + y
        store(planes, target, clamp(shift_left(r, shift), top))
        store(planes, target + plane, clamp(shift_left(g, shift), top))
        store(planes, target + 2 * plane, clamp(shift_left(b, shift), top))


# ------------------------------------------------------------------------------------ filter taps


@jit
def max_taps(unit, kernel):
    """Upper bound on the taps of one output pixel."""
    return int(2.0 * (1.0 if kernel == BILINEAR else 2.0) * unit) + 2


@jit_ieee
def filter_taps(
    length, origin, scale, full, first, size, kernel, unit, reverse,
    begins, counts, weights, workspace,
):  # fmt: skip
    """First tap, tap count and normalised weights of each window pixel; returns the largest count.

    The source line has `length` pixels. Output pixel i is centred at origin + (i + 1/2) scale, and
    the kernel is stretched to `unit` source pixels. Weight k of pixel j is weights[k * size + j],
    so that loops over pixels vectorise. Window pixels outside 0 .. full - 1 have no taps.
    `reverse` builds the table backwards, which mirrors the view at no cost. Without fastmath, whose
    rounding depends on the functions that this one is compiled into.
    """
    nearest, total = workspace[:size], workspace[size : 2 * size]
    support = (1.0 if kernel == BILINEAR else 2.0) * unit
    most = 0
    # Range of taps of each pixel, and the distance of the first to its centre.
    for j in range(size):
        i = first + (size - 1 - j if reverse else j)
        centre = origin + (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), length)
        inside = 0 <= i and i < full
        begins[j], counts[j] = (begin, end - begin) if inside else (0, 0)
        nearest[j], total[j] = (begin - centre + 0.5) / unit, 0
        most = max(most, counts[j])
    # Weights, tap by tap, and their sums.
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
    # Normalise.
    for j in range(size):
        total[j] = np.float32(1) / total[j] if counts[j] > 0 else np.float32(0)
    for k in range(most):
        row = weights[k * size : (k + 1) * size]
        for j in range(size):
            row[j] *= total[j]
    return most


@jit_ieee
def triangle(x):
    return max(np.float32(1) - abs(x), np.float32(0))


@jit_ieee
def cubic(x):
    """Keys' cubic kernel with a = -0.5, as in PIL and torchvision's antialiased resize."""
    x = abs(np.float32(x))
    near = (np.float32(1.5) * x - np.float32(2.5)) * x * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return near if x < np.float32(1) else (far if x < np.float32(2) else np.float32(0))


@jit_ieee
def spline(x):
    """Cubic B-spline, times six."""
    x = abs(np.float32(x))
    near, far = max(np.float32(1) - x, np.float32(0)), max(np.float32(2) - x, np.float32(0))
    return far * far * far - np.float32(4) * near * near * near


@jit
def quantise_weights(weights, counts, most, fixed, workspace):
    """Quantise weights to int16 that sum to 1.0 exactly; the middle tap takes the rounding error.

    1.0 is 32768. Where a weight exceeds 1.0 (bicubic upscaling at a border, where negative taps are
    cut off) 1.0 is 16384, and the result must be shifted left by the returned 1.
    """
    size = len(counts)
    largest = np.float32(0)
    for i in range(most * size):
        largest = max(largest, weights[i])
    weight_shift = 1 if largest > np.float32(1.0001) else 0
    one = np.int32(32768 >> weight_shift)
    rest = workspace[:size]
    rest[:] = one
    for k in range(most):
        float_planes, rounded = weights[k * size : (k + 1) * size], fixed[k * size : (k + 1) * size]
        for j in range(size):
            weight = np.int32(np.rint(float_planes[j] * np.float32(one)))
            rounded[j] = min(weight, np.int32(32767))
            rest[j] -= weight
    for j in range(size):
        if counts[j] > 0:
            middle = counts[j] // 2 * size + j
            fixed[middle] = min(fixed[middle] + rest[j], 32767)
    return weight_shift


@jit
def source_range(begins, counts):
    """Range of source pixels that the window's output pixels need."""
    start, stop = np.int64(1 << 40), np.int64(0)
    for j in range(len(begins)):
        if counts[j] > 0:
            start, stop = min(start, begins[j]), max(stop, begins[j] + counts[j])
    return min(start, stop), stop
