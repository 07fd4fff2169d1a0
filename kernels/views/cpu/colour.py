"""Colour jitter, grey and Gaussian blur on the CPU, on planes of fixed point (UNIT is 1.0).

All but the hue works in int16 lanes, one row of the three planes at a time so that a row stays in
the first-level cache for all its operations; the contrast's mean needs one extra pass, and only
where there is contrast. Every operation reads and writes 6 bytes a pixel. The blur is two passes
of (radius + 1) multiplies a value.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.kernels.common.simd import WIDTH, clamp, doubled, load, plus, splat, store, tap
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, pitch_of

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


@jit
def colour(row, size, planes):
    """Apply the row's grey and jitter, in the row's order, to the planes in place."""
    jitter = row.order != NO_JITTER
    if not jitter and row.grey == 0:
        return
    contrast_at = -1
    if jitter and row.contrast != ONE:
        for k in range(4):
            if (row.order >> 2 * k) & 3 == CONTRAST:
                contrast_at = k
    if contrast_at >= 0:
        luma = run(row, 0, contrast_at, True, ZERO, size, planes)
        run(row, contrast_at, 4, False, luma / np.float32(size * size), size, planes)
    else:
        run(row, 0, 4 if jitter else 0, False, ZERO, size, planes)


@jit
def run(row, first, last, measure, mean, size, planes):
    """Operations `first` to `last` of the order and grey at either end; or the luma they leave."""
    pitch = pitch_of(size)
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
                shift_hue(planes, at, plane, size, row.hue)
        if measure:
            total += luma_sum(planes, at, plane, size)
        elif row.grey == GREY_LAST:
            grey(planes, at, plane, size)
    return total


@jit
def gain_of(factor, doubles):
    """A factor below 4 as a weight: 14 fractional bits, one less where the result is doubled."""
    return np.int16(np.rint(factor * (16384 >> doubles)))


@jit
def blend(planes, at, plane, size, factor, constant):
    """clamp(factor * value + constant), the constant in fixed point; half scale leaves headroom."""
    doubles = 1 if factor >= np.float32(1.99) else 0
    gain, top = splat(gain_of(factor, doubles)), splat(HALF_UNIT)
    zero, rest = splat(ZERO_16), splat(np.int16(np.rint(constant * HALF)))
    for channel in range(3):
        start = at + channel * plane
        for p in range(start, start + size, WIDTH):
            value = tap(zero, doubled(load(planes, p, zero), 1), gain)
            store(planes, p, doubled(clamp(plus(doubled(value, doubles), rest), top), 1))


@jit
def saturate(planes, at, plane, size, factor):
    """clamp(factor * value + (1 - factor) * luma), in half scale."""
    doubles = 1 if factor >= np.float32(1.99) else 0
    gain, rest = splat(gain_of(factor, doubles)), splat(gain_of(ONE - factor, doubles))
    top, zero = splat(HALF_UNIT), splat(ZERO_16)
    for p in range(at, at + size, WIDTH):
        r = doubled(load(planes, p, zero), 1)
        g = doubled(load(planes, p + plane, zero), 1)
        b = doubled(load(planes, p + 2 * plane, zero), 1)
        luma = tap(zero, doubled(luma_of(r, g, b), 2), rest)
        store(planes, p, doubled(clamp(doubled(tap(luma, r, gain), doubles), top), 1))
        store(planes, p + plane, doubled(clamp(doubled(tap(luma, g, gain), doubles), top), 1))
        store(planes, p + 2 * plane, doubled(clamp(doubled(tap(luma, b, gain), doubles), top), 1))


@jit
def luma_of(r, g, b):
    """Half the luma of lanes that hold twice their value."""
    return tap(
        tap(tap(splat(np.int16(1)), r, splat(RED_14)), g, splat(GREEN_14)), b, splat(BLUE_14)
    )


@jit
def grey(planes, at, plane, size):
    zero, top = splat(ZERO_16), splat(UNIT_16)
    for p in range(at, at + size, WIDTH):
        r = doubled(load(planes, p, zero), 1)
        g = doubled(load(planes, p + plane, zero), 1)
        b = doubled(load(planes, p + 2 * plane, zero), 1)
        luma = clamp(doubled(luma_of(r, g, b), 1), top)
        store(planes, p, luma)
        store(planes, p + plane, luma)
        store(planes, p + 2 * plane, luma)


@jit
def luma_sum(planes, at, plane, size):
    r, g = planes[at : at + size], planes[at + plane : at + plane + size]
    b = planes[at + 2 * plane : at + 2 * plane + size]
    total = ZERO
    for i in range(size):
        total += RED * r[i] + GREEN * g[i] + BLUE * b[i]
    return total


@jit
def shift_hue(planes, at, plane, size, shift):
    """HSV with the hue turned by `shift`: torchvision's adjust_hue without its branches.

    With the new hue h in sixths of a turn, wrapped to [-3, 3], the channels lie below the largest
    one by the spread times clamp(|h| - 1), clamp(2 - |h + 1|) and clamp(2 - |h - 1|).
    """
    r, g = planes[at : at + size], planes[at + plane : at + plane + size]
    b = planes[at + 2 * plane : at + 2 * plane + size]
    turn = np.float32(6) * shift
    for i in range(size):
        red, green, blue = np.float32(r[i]), np.float32(g[i]), np.float32(b[i])
        top = max(max(red, green), blue)
        spread = top - min(min(red, green), blue)
        inverse = ONE / max(spread, ONE)
        rise = green - blue if top == red else (blue - red if top == green else red - green)
        base = ZERO if top == red else (np.float32(2) if top == green else np.float32(4))
        hue = rise * inverse + (base + turn)
        hue -= np.float32(6) * np.rint(hue * np.float32(1 / 6))
        two = np.float32(2)
        r[i] = np.int16(top - spread * share(abs(hue) - ONE) + HALF)
        g[i] = np.int16(top - spread * share(two - abs(hue + ONE)) + HALF)
        b[i] = np.int16(top - spread * share(two - abs(hue - ONE)) + HALF)


@jit
def share(x):
    return min(max(x, ZERO), ONE)


# --------------------------------------------------------------------------------------------- blur


MARGIN = WIDTH  # room on either side of a row for its reflected ends; the radius is below it


@jit
def blur_bytes(size, radius):
    return (
        2 * 3 * size * (pitch_of(size) + 2 * MARGIN)
        + 2 * (radius + 1)
        + 8 * (2 * radius + 1)
        + 1024
    )


@jit
def blur(row, size, planes, pool):
    """Separable Gaussian over the planes in place, borders reflected."""
    radius, pitch = row.radius, pitch_of(size)
    wide = pitch + 2 * MARGIN
    raw, pool = carve(pool, 2 * (radius + 1))
    weights = raw.view(np.int16)
    gaussian(row.sigma, radius, weights)
    while radius > 0 and weights[radius] == 0:  # a tap that rounds to nothing has nothing to add
        radius -= 1
    raw, pool = carve(pool, 8 * (2 * radius + 1))
    lines = raw.view(np.int64)
    raw, pool = carve(pool, 2 * 3 * size * wide)
    other = raw.view(np.int16)
    for x in range(size):
        for k in range(2 * radius + 1):
            lines[k] = reflected(x + k - radius, size) * pitch
        for plane in range(3):
            to = (plane * size + x) * wide + MARGIN
            across(planes, plane * size * pitch, size, radius, weights, lines, other, to)
            for i in range(1, radius + 1):
                other[to - i] = other[to + reflected(-i, size)]
                other[to + size - 1 + i] = other[to + reflected(size - 1 + i, size)]
    for x in range(3 * size):
        along(other, x * wide + MARGIN, size, radius, weights, planes, x * pitch)


@jit
def gaussian(sigma, radius, weights):
    """Half of the symmetric taps, centre first, as fractions of 32768 that sum to one."""
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
def across(planes, at, size, radius, weights, lines, other, to):
    """One row of a plane filtered across rows; `lines` are the offsets of the rows around it."""
    zero = splat(ZERO_16)
    bias = splat(np.int16((radius + 1) // 2))
    for y in range(0, size, WIDTH):
        here = at + y
        centre = load(planes, here + lines[radius], zero)
        total = tap(bias, centre, splat(weights[0]))
        for k in range(1, radius + 1):
            left = load(planes, here + lines[radius - k], zero)
            right = load(planes, here + lines[radius + k], zero)
            total = tap(total, plus(left, right), splat(weights[k]))
        store(other, to + y, doubled(total, 1))


@jit
def along(other, at, size, radius, weights, planes, to):
    """One row filtered along itself; its ends have been reflected into the margins."""
    zero = splat(ZERO_16)
    bias = splat(np.int16((radius + 1) // 2))
    for y in range(0, size, WIDTH):
        p = at + y
        centre = load(other, p, zero)
        total = tap(bias, centre, splat(weights[0]))
        for k in range(1, radius + 1):
            around = plus(load(other, p - k, zero), load(other, p + k, zero))
            total = tap(total, around, splat(weights[k]))
        store(planes, to + y, doubled(total, 1))


@jit
def reflected(i, size):
    """Index i of an endless row that is mirrored at its first and last pixel."""
    if 0 <= i < size:
        return i
    if size == 1:
        return 0
    period = 2 * size - 2
    i %= period
    return i if i < size else period - i
