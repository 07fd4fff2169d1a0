"""Separable Gaussian blur on the CPU's fixed-point planes.

Both passes combine whole lines of memory, with (radius + 1) multiplies per value. Between them the
planes are transposed, a strip of lines at a time while it is in the L1 cache, so that no pass loads
across cache lines. The output is transposed relative to the input.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee, jit_inline, jit_lanes
from patchmill.kernels.common.simd import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    LANES,
    add,
    load,
    multiply_add,
    shift_left,
    splat,
    store,
    transpose_block,
)
from patchmill.kernels.views.cpu.resize import carve, plane_pitch

ONE = np.uint64(1)
STRIP = 2 * BLOCK_ROWS  # lines transposed at a time


@jit_ieee
def blur_bytes(size, radius):
    """Scratch bytes that `blur` needs for a view of `size` and radii up to `radius`."""
    pitch = plane_pitch(size)
    tables = 2 * (radius + 1) + 8 * (size + 2 * radius)
    return tables + 2 * 3 * STRIP * pitch + 2 * 3 * padded_lines(size) * pitch + 1024


@jit_ieee
def padded_lines(size):
    """Lines of a transposed plane, rounded up to whole blocks."""
    return (size + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS * BLOCK_COLUMNS


@jit_inline
def blur(row, size, planes, scratch):
    """Blur and transpose the planes in place, with reflected borders."""
    radius, pitch = row.radius, plane_pitch(size)
    raw, scratch = carve(scratch, 2 * (radius + 1))
    weights = as_type(raw, np.int16)
    gaussian_taps(row.sigma, radius, weights)
    while radius > 0 and weights[radius] == 0:  # drop outer taps that round to zero
        radius -= 1
    raw, scratch = carve(scratch, 8 * (size + 2 * radius))
    lines = as_type(raw, np.int64)  # offset of the line at each position, from -radius on
    for i in range(size + 2 * radius):
        lines[i] = reflect(i - radius, size) * pitch
    raw, scratch = carve(scratch, 2 * 3 * STRIP * pitch)
    strip = as_type(raw, np.int16)
    plane = padded_lines(size) * pitch
    raw, scratch = carve(scratch, 2 * 3 * plane)
    turned = as_type(raw, np.int16)
    for first in range(0, size, STRIP):
        stop = min(first + STRIP, size)
        blur_lines(
            planes, size * pitch, size, radius, weights, lines, first, stop, strip, STRIP * pitch
        )
        for channel in range(3):
            for y in range(0, size, BLOCK_COLUMNS):
                for i in range(0, STRIP, BLOCK_ROWS):
                    at = (channel * STRIP + i) * pitch + y
                    to = channel * plane + y * pitch + first + i
                    transpose_block(strip, at, pitch, turned, to, pitch)
    blur_lines(turned, plane, size, radius, weights, lines, np.int64(0), size, planes, size * pitch)


@jit_ieee
def gaussian_taps(sigma, radius, weights):
    """Centre tap and one side of the symmetric taps, as int16 that sum to 1.0 = 32768."""
    total = 1.0
    for k in range(1, radius + 1):
        total += 2 * np.exp(-0.5 * (k / sigma) ** 2)
    rest = 32768
    for k in range(radius, 0, -1):
        weight = int(np.rint(32768 * np.exp(-0.5 * (k / sigma) ** 2) / total))
        weights[k] = weight
        rest -= 2 * weight
    weights[0] = min(rest, 32767)


@jit_ieee
def blur_lines(
    source, plane, size, radius, weights, lines, first, stop, target, target_plane
):  # fmt: skip
    """Filter lines `first` to `stop` - 1 of three planes across their neighbours.

    The neighbours of line x start at `lines[x:]`. Line `first` is written to the start of `target`.
    """
    bias, zero, pitch = splat(np.int16((radius + 1) // 2)), splat(np.int16(0)), plane_pitch(size)
    for x in range(first, stop):
        middle = np.uint64(x + radius)  # unsigned: skips the check for negative indices
        for y in range(0, size, LANES):
            at, weight = lines[middle] + y, splat(weights[0])
            r = multiply_add(bias, load(source, at, zero), weight)
            g = multiply_add(bias, load(source, at + plane, zero), weight)
            b = multiply_add(bias, load(source, at + 2 * plane, zero), weight)
            for k in range(ONE, np.uint64(radius + 1)):
                i, j = lines[middle - k] + y, lines[middle + k] + y
                weight = splat(weights[k])
                r = multiply_add(r, pair(source, i, j, zero), weight)
                g = multiply_add(g, pair(source, i + plane, j + plane, zero), weight)
                b = multiply_add(b, pair(source, i + 2 * plane, j + 2 * plane, zero), weight)
            to = (x - first) * pitch + y
            store(target, to, shift_left(r, 1))
            store(target, to + target_plane, shift_left(g, 1))
            store(target, to + 2 * target_plane, shift_left(b, 1))


@jit_lanes
def pair(source, i, j, like):
    """Sum of two values that share a tap."""
    return add(load(source, i, like), load(source, j, like))


@jit_ieee
def reflect(i, size):
    """Index i of a row reflected at its first and last pixel (edge pixels not repeated)."""
    if 0 <= i < size:
        return i
    if size == 1:
        return 0
    period = 2 * size - 2
    i %= period
    return i if i < size else period - i
