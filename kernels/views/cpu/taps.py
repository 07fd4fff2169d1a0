"""Filter tables of one axis on the CPU: the first tap and the weights of every pixel of a view."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee

BILINEAR, BICUBIC, SPLINE = 0, 1, 2  # filter kernels with a support of 2, 4 and 4 pixels


@jit_ieee
def max_taps(unit, kernel):
    """Upper bound on the taps of one output pixel."""
    return int(2.0 * (1.0 if kernel == BILINEAR else 2.0) * unit) + 2


@jit_ieee
def filter_taps(
    length, origin, scale, full, first, size, kernel, unit, reverse,
    begins, inside, weights, total, nearest,
):  # fmt: skip
    """First tap and weights of each window pixel, and the sums of the weights; returns the taps.

    The source line has `length` pixels. Output pixel i is centred at origin + (i + 1/2) scale, and
    the kernel is stretched to `unit` source pixels. Weight k of pixel j is weights[k * size + j],
    so that loops over pixels vectorise. All pixels have the same number of taps, some of weight 0,
    so branch prediction works. Window pixels outside 0 .. full - 1 have a sum and an `inside` of 0.
    `reverse` builds the table backwards, which mirrors the view at no cost. Without fastmath, whose
    rounding depends on the functions that this one is inlined into.
    """
    support = (1.0 if kernel == BILINEAR else 2.0) * unit
    sign, offset = (-1, first + size - 1) if reverse else (1, first)
    taps = 1
    for j in range(size):
        i = min(max(offset + sign * j, 0), full - 1)
        centre = origin + (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        begins[j] = begin
        taps = max(taps, min(int(centre + support + 0.5), length) - begin)
    last = length - taps
    for j in range(size):
        i = min(max(offset + sign * j, 0), full - 1)
        centre = origin + (i + 0.5) * scale
        begins[j] = min(begins[j], last)
        inside[j] = i == offset + sign * j
        nearest[j], total[j] = (begins[j] - centre + 0.5) / unit, 0
    # Weights, tap by tap, and their sums.
    step = np.float32(1.0 / unit)
    for k in range(taps):
        row, shift = weights[k * size : (k + 1) * size], np.float32(k) * step
        if kernel == BICUBIC:
            for j in range(size):
                row[j] = cubic(nearest[j] + shift)
                total[j] += row[j]
        elif kernel == SPLINE:
            for j in range(size):
                row[j] = spline(nearest[j] + shift)
                total[j] += row[j]
        else:
            for j in range(size):
                row[j] = triangle(nearest[j] + shift)
                total[j] += row[j]
    for j in range(size):
        total[j] *= np.float32(inside[j])
    return taps


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


@jit_ieee
def normalise_weights(weights, total, taps):
    """Divide weights by their sums, in place; 0 if the sum is 0."""
    size = len(total)
    for j in range(size):
        total[j] = np.float32(1) / total[j] if total[j] != 0 else np.float32(0)
    for k in range(taps):
        row = weights[k * size : (k + 1) * size]
        for j in range(size):
            row[j] *= total[j]


@jit_ieee
def quantise_weights(weights, total, taps, weight_shift, fixed, rest):
    """Quantise weights to int16 that sum to 1.0 exactly; the middle tap takes the rounding error.

    1.0 is 32768, or 16384 if `weight_shift` is 1. They are written to `fixed` as `splat_at`
    expects.
    """
    size, middle = len(total), taps // 2
    one, last = np.int32(32768 >> weight_shift), fixed[middle * size : (middle + 1) * size]
    scale = as_type(last, np.float32)
    for j in range(size):
        scale[j] = np.float32(one) / total[j] if total[j] != 0 else np.float32(0)
        rest[j] = one if total[j] != 0 else np.int32(0)
    for k in range(taps):
        if k != middle:
            row, pairs = weights[k * size : (k + 1) * size], fixed[k * size : (k + 1) * size]
            for j in range(size):
                weight = min(np.int32(np.rint(row[j] * scale[j])), np.int32(32767))
                pairs[j] = in_both_halves(weight)
                rest[j] -= weight
    for j in range(size):
        last[j] = in_both_halves(min(rest[j], np.int32(32767)))


@jit_ieee
def in_both_halves(weight):
    """An int16 duplicated in both halves of an int32."""
    return np.int32((weight << 16) | (weight & 0xFFFF))


@jit_ieee
def source_range(begins, taps):
    """Range of source pixels that the window's pixels need."""
    start, stop = begins[0], begins[0]
    for j in range(len(begins)):
        start, stop = min(start, begins[j]), max(stop, begins[j])
    return start, stop + taps
