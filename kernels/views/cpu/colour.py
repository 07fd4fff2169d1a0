"""Colour jitter, greyscale and separable Gaussian blur on the CPU's fixed-point planes.

All operations but hue use int16 lanes, one row of the three planes at a time, so that a row stays
in the L1 cache for all of its operations. Contrast needs the mean luma: one extra pass, only where
there is contrast. Each operation reads and writes 6 bytes per pixel. The blur is two passes of
(radius + 1) multiplies per value.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit, jit_inline
from patchmill.kernels.common.simd import (
    LANES,
    add,
    clamp,
    load,
    multiply_add,
    shift_left,
    splat,
    store,
)
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, plane_pitch

RED, GREEN, BLUE = (np.float32(weight) for weight in decisions.LUMA)
RED_14, GREEN_14, BLUE_14 = (np.int16(round(weight * 16384)) for weight in decisions.LUMA)
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
NO_JITTER, GREY_FIRST, GREY_LAST = decisions.NO_JITTER, decisions.GREY_FIRST, decisions.GREY_LAST
BRIGHTNESS, CONTRAST, SATURATION, HUE = (
    decisions.BRIGHTNESS,
    decisions.CONTRAST,
    decisions.SATURATION,
    decisions.HUE,
)
ZERO_16, UNIT_16, HALF_UNIT = np.int16(0), np.int16(UNIT), np.int16(UNIT // 2)
FROM_FIXED, TO_FIXED = np.float32(1 / UNIT), np.float32(UNIT)


@jit_inline
def colour(row, size, planes):
    """Apply the row's greyscale and jitter, in the row's order, to the planes in place."""
    jitter = row.order != NO_JITTER
    contrast_at = -1
    if jitter and row.contrast != ONE:
        for k in range(4):
            if (row.order >> 2 * k) & 3 == CONTRAST:
                contrast_at = k
    passes = 0
    if jitter or row.grey != 0:
        passes = 2 if contrast_at >= 0 else 1
    first, mean = 0, ZERO
    for remaining in range(passes, 0, -1):
        measure = remaining == 2  # the operations before contrast, which needs the mean luma
        last = contrast_at if measure else (4 if jitter else 0)
        luma = apply_operations(row, first, last, measure, mean, size, planes)
        first, mean = last, luma / np.float32(size * size)


@jit
def apply_operations(row, first, last, measure, mean, size, planes):
    """Apply operations `first` to `last` - 1 of the row's order, and greyscale at either end.

    With `measure`, return the sum of the resulting luma instead of applying the last greyscale.
    """
    pitch = plane_pitch(size)
    plane = size * pitch
    total = ZERO
    for x in range(size):
        at = x * pitch
        if first == 0 and row.grey == GREY_FIRST:
            grey(planes, at, plane, size)
        for k in range(first, last):
            operation = (row.order >> 2 * k) & 3
            if operation == BRIGHTNESS and row.brightness != ONE:
                blend(planes, at, plane, size, row.brightness, ZERO)
            elif operation == CONTRAST and row.contrast != ONE:
                blend(planes, at, plane, size, row.contrast, (ONE - row.contrast) * mean)
            elif operation == SATURATION and row.saturation != ONE:
                saturate(planes, at, plane, size, row.saturation)
            elif operation == HUE and row.hue != ZERO:
                rotate_hue(planes, at, plane, size, row.hue)
        if measure:
            total += luma_sum(planes, at, plane, size)
        elif row.grey == GREY_LAST:
            grey(planes, at, plane, size)
    return total


@jit
def quantise_gain(factor, weight_shift):
    """Quantise a factor below 4 to 14 fractional bits, or 13 where the result is shifted left."""
    return np.int16(np.rint(factor * (16384 >> weight_shift)))


@jit
def blend(planes, at, plane, size, factor, constant):
    """clamp(factor * value + constant), constant in fixed point; half scale gives headroom."""
    weight_shift = 1 if factor >= np.float32(1.99) else 0
    gain, top = splat(quantise_gain(factor, weight_shift)), splat(HALF_UNIT)
    zero, rest = splat(ZERO_16), splat(np.int16(np.rint(constant * HALF)))
    for channel in range(3):
        start = at + channel * plane
        for p in range(start, start + size, LANES):
            value = multiply_add(zero, shift_left(load(planes, p, zero), 1), gain)
            store(planes, p, shift_left(clamp(add(shift_left(value, weight_shift), rest), top), 1))


@jit
def saturate(planes, at, plane, size, factor):
    """clamp(factor * value + (1 - factor) * luma), in half scale."""
    weight_shift = 1 if factor >= np.float32(1.99) else 0
    gain = splat(quantise_gain(factor, weight_shift))
    luma_gain = splat(quantise_gain(ONE - factor, weight_shift))
    top, zero = splat(HALF_UNIT), splat(ZERO_16)
    for p in range(at, at + size, LANES):
        r = shift_left(load(planes, p, zero), 1)
        g = shift_left(load(planes, p + plane, zero), 1)
        b = shift_left(load(planes, p + 2 * plane, zero), 1)
        luma = multiply_add(zero, shift_left(luma_of(r, g, b), 2), luma_gain)
        r = clamp(shift_left(multiply_add(luma, r, gain), weight_shift), top)
        g = clamp(shift_left(multiply_add(luma, g, gain), weight_shift), top)
        b = clamp(shift_left(multiply_add(luma, b, gain), weight_shift), top)
        store(planes, p, shift_left(r, 1))
        store(planes, p + plane, shift_left(g, 1))
        store(planes, p + 2 * plane, shift_left(b, 1))


@jit
def luma_of(r, g, b):
    """Half the luma of lanes that hold twice their value."""
    total = multiply_add(splat(np.int16(1)), r, splat(RED_14))
    total = multiply_add(total, g, splat(GREEN_14))
    return multiply_add(total, b, splat(BLUE_14))


@jit
def grey(planes, at, plane, size):
    """Replace the channels of one row by their luma."""
    zero, top = splat(ZERO_16), splat(UNIT_16)
    for p in range(at, at + size, LANES):
        r = shift_left(load(planes, p, zero), 1)
        g = shift_left(load(planes, p + plane, zero), 1)
        b = shift_left(load(planes, p + 2 * plane, zero), 1)
        luma = clamp(shift_left(luma_of(r, g, b), 1), top)
        store(planes, p, luma)
        store(planes, p + plane, luma)
        store(planes, p + 2 * plane, luma)


@jit
def luma_sum(planes, at, plane, size):
    """Sum of the luma of one row."""
    r, g = planes[at : at + size], planes[at + plane : at + plane + size]
    b = planes[at + 2 * plane : at + 2 * plane + size]
    total = ZERO
    for i in range(size):
        total += RED * r[i] + GREEN * g[i] + BLUE * b[i]
    return total


@jit
def rotate_hue(planes, at, plane, size, shift):
    """Rotate the HSV hue by `shift` turns: torchvision's adjust_hue, branch-free.

    With chroma C = max - min and the new hue h in sixths of a turn, wrapped to [-3, 3], the
    channels are max - C clamp(|h| - 1), max - C clamp(2 - |h + 1|), max - C clamp(2 - |h - 1|).
    """
    r, g = planes[at : at + size], planes[at + plane : at + plane + size]
    b = planes[at + 2 * plane : at + 2 * plane + size]
    turn = np.float32(6) * shift
    for i in range(size):
        red, green, blue = np.float32(r[i]), np.float32(g[i]), np.float32(b[i])
        top = max(max(red, green), blue)
        chroma = top - min(min(red, green), blue)
        inverse = ONE / max(chroma, ONE)
        rise = green - blue if top == red else (blue - red if top == green else red - green)
        base = ZERO if top == red else (np.float32(2) if top == green else np.float32(4))
        hue = rise * inverse + (base + turn)
        hue -= np.float32(6) * np.rint(hue * np.float32(1 / 6))
        two = np.float32(2)
        r[i] = np.int16(top - chroma * clamp_unit(abs(hue) - ONE) + HALF)
        g[i] = np.int16(top - chroma * clamp_unit(two - abs(hue + ONE)) + HALF)
        b[i] = np.int16(top - chroma * clamp_unit(two - abs(hue - ONE)) + HALF)


@jit
def clamp_unit(x):
    """min(max(x, 0), 1)."""
    return min(max(x, ZERO), ONE)


# --------------------------------------------------------------------------------------------- blur


MARGIN = LANES  # elements on either side of a row for its reflected ends; above any radius


@jit
def blur_bytes(size, radius):
    """Scratch bytes that `blur` needs for a view of `size` and radii up to `radius`."""
    return (
        2 * 3 * size * (plane_pitch(size) + 2 * MARGIN)
        + 2 * (radius + 1)
        + 8 * (2 * radius + 1)
        + 1024
    )


@jit_inline
def blur(row, size, planes, scratch):
    """Separable Gaussian blur of the planes in place, borders reflected."""
    radius, pitch = row.radius, plane_pitch(size)
    padded_pitch = pitch + 2 * MARGIN
    raw, scratch = carve(scratch, 2 * (radius + 1))
    weights = as_type(raw, np.int16)
    gaussian_taps(row.sigma, radius, weights)
    while radius > 0 and weights[radius] == 0:  # drop outer taps that round to zero
        radius -= 1
    raw, scratch = carve(scratch, 8 * (2 * radius + 1))
    row_offsets = as_type(raw, np.int64)
    raw, scratch = carve(scratch, 2 * 3 * size * padded_pitch)
    buffer = as_type(raw, np.int16)
    # Across rows, into a buffer whose rows have reflected margins.
    for x in range(size):
        for k in range(2 * radius + 1):
            row_offsets[k] = reflect(x + k - radius, size) * pitch
        for plane in range(3):
            to = (plane * size + x) * padded_pitch + MARGIN
            blur_across(
                planes, plane * size * pitch, size, radius, weights, row_offsets, buffer, to
            )
            for i in range(1, radius + 1):
                buffer[to - i] = buffer[to + reflect(-i, size)]
                buffer[to + size - 1 + i] = buffer[to + reflect(size - 1 + i, size)]
    # Along rows, back into the planes.
    for x in range(3 * size):
        blur_along(buffer, x * padded_pitch + MARGIN, size, radius, weights, planes, x * pitch)


@jit
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


@jit
def blur_across(planes, at, size, radius, weights, row_offsets, buffer, to):
    """Filter one row of a plane across its neighbours, which start at `row_offsets`."""
    zero = splat(ZERO_16)
    bias = splat(np.int16((radius + 1) // 2))
    for y in range(0, size, LANES):
        column_offset = at + y
        centre = load(planes, column_offset + row_offsets[radius], zero)
        total = multiply_add(bias, centre, splat(weights[0]))
        for k in range(1, radius + 1):
            left = load(planes, column_offset + row_offsets[radius - k], zero)
            right = load(planes, column_offset + row_offsets[radius + k], zero)
            total = multiply_add(total, add(left, right), splat(weights[k]))
        store(buffer, to + y, shift_left(total, 1))


@jit
def blur_along(buffer, at, size, radius, weights, planes, to):
    """Filter one row along itself; its ends are already reflected into the margins."""
    zero = splat(ZERO_16)
    bias = splat(np.int16((radius + 1) // 2))
    for y in range(0, size, LANES):
        p = at + y
        centre = load(buffer, p, zero)
        total = multiply_add(bias, centre, splat(weights[0]))
        for k in range(1, radius + 1):
            around = add(load(buffer, p - k, zero), load(buffer, p + k, zero))
            total = multiply_add(total, around, splat(weights[k]))
        store(planes, to + y, shift_left(total, 1))


@jit
def reflect(i, size):
    """Index i of a row reflected at its first and last pixel (edge pixels not repeated)."""
    if 0 <= i < size:
        return i
    if size == 1:
        return 0
    period = 2 * size - 2
    i %= period
    return i if i < size else period - i
