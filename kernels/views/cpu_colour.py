"""Colour jitter, grey and Gaussian blur on the CPU, on planes of fixed point (UNIT is 1.0).

Colour works on one row of the three planes at a time, in float32 and in the first-level cache; the
contrast's mean needs one extra pass, and only where there is contrast. Every operation reads and
writes 6 bytes a pixel. The blur is two passes of (radius + 1) multiplies a value, in int16 lanes.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.jit import jit
from patchmill.kernels.views import rows
from patchmill.kernels.views.cpu_resize import UNIT, carve, pitch_of
from patchmill.kernels.views.lanes import WIDTH, load, pair, splat, store, tap

RED, GREEN, BLUE = (np.float32(weight) for weight in rows.LUMA)
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
NO_JITTER, GREY_FIRST, GREY_LAST = rows.NO_JITTER, rows.GREY_FIRST, rows.GREY_LAST
BRIGHTNESS, CONTRAST, SATURATION, HUE = rows.BRIGHTNESS, rows.CONTRAST, rows.SATURATION, rows.HUE
TO_FLOAT, TO_FIXED = np.float32(1 / UNIT), np.float32(UNIT)


@jit
def colour_bytes(size):
    return 3 * 4 * pitch_of(size) + 256


@jit
def colour(row, size, planes, pool):
    """Apply the row's grey and jitter, in the row's order, to the planes in place."""
    jitter = row.order != NO_JITTER
    if not jitter and row.grey == 0:
        return
    contrast_at = -1
    if jitter and row.contrast != ONE:
        for i in range(4):
            if (row.order >> 2 * i) & 3 == CONTRAST:
                contrast_at = i
    mean = ZERO
    if contrast_at >= 0:
        luma = run(row, 0, contrast_at, False, mean, size, planes, pool)
        mean = np.float32(luma / (size * size))
        run(row, contrast_at, 4, True, mean, size, planes, pool)
    else:
        run(row, 0, 4 if jitter else 0, True, mean, size, planes, pool)


@jit
def run(row, first, last, to_end, mean, size, planes, pool):
    """Operations `first` to `last` of the order, and grey at either end; returns the sum of luma."""
    pitch = pitch_of(size)
    line, pool = carve(pool, 3 * 4 * pitch)
    lines = line.view(np.float32)
    r, g, b = lines[:size], lines[pitch : pitch + size], lines[2 * pitch : 2 * pitch + size]
    plane = size * pitch
    total = 0.0
    for x in range(size):
        at = x * pitch
        red = planes[at : at + size]
        green = planes[at + plane : at + plane + size]
        blue = planes[at + 2 * plane : at + 2 * plane + size]
        for i in range(size):
            r[i] = red[i] * TO_FLOAT
            g[i] = green[i] * TO_FLOAT
            b[i] = blue[i] * TO_FLOAT
        if first == 0 and row.grey == GREY_FIRST:
            grey(r, g, b)
        for k in range(first, last):
            operation = (row.order >> 2 * k) & 3
            if operation == BRIGHTNESS and row.brightness != ONE:
                blend(r, g, b, row.brightness, ZERO)
            elif operation == CONTRAST and row.contrast != ONE:
                blend(r, g, b, row.contrast, (ONE - row.contrast) * mean)
            elif operation == SATURATION and row.saturation != ONE:
                saturate(r, g, b, row.saturation)
            elif operation == HUE and row.hue != ZERO:
                shift_hue(r, g, b, row.hue)
        if to_end:
            if row.grey == GREY_LAST:
                grey(r, g, b)
        else:
            total += luma_sum(r, g, b)
        for i in range(size):
            red[i] = np.int16(r[i] * TO_FIXED + HALF)
            green[i] = np.int16(g[i] * TO_FIXED + HALF)
            blue[i] = np.int16(b[i] * TO_FIXED + HALF)
    return total


@jit
def blend(r, g, b, factor, constant):
    for i in range(len(r)):
        r[i] = min(max(factor * r[i] + constant, ZERO), ONE)
        g[i] = min(max(factor * g[i] + constant, ZERO), ONE)
        b[i] = min(max(factor * b[i] + constant, ZERO), ONE)


@jit
def saturate(r, g, b, factor):
    rest = ONE - factor
    for i in range(len(r)):
        luma = rest * (RED * r[i] + GREEN * g[i] + BLUE * b[i])
        r[i] = min(max(factor * r[i] + luma, ZERO), ONE)
        g[i] = min(max(factor * g[i] + luma, ZERO), ONE)
        b[i] = min(max(factor * b[i] + luma, ZERO), ONE)


@jit
def shift_hue(r, g, b, shift):
    """HSV with the hue turned by `shift`: torchvision's adjust_hue without its branches.

    With six = 6 * hue, channel n of a colour is v - range * clamp(min(k, 4 - k), 0, 1) where
    k = (n + six) mod 6 and n is 5, 3, 1 for red, green, blue.
    """
    six, two, four, three, five = (
        np.float32(6), np.float32(2), np.float32(4), np.float32(3), np.float32(5),
    )  # fmt: skip
    sixth = np.float32(1 / 6)
    for i in range(len(r)):
        red, green, blue = r[i], g[i], b[i]
        top = max(max(red, green), blue)
        spread = top - min(min(red, green), blue)
        inverse = ONE / (spread if spread > ZERO else ONE)
        from_red = (green - blue) * inverse
        from_green = two + (blue - red) * inverse
        from_blue = four + (red - green) * inverse
        hue = from_red if top == red else (from_green if top == green else from_blue)
        hue = hue + six * shift
        k = hue + five
        k -= six * np.floor(k * sixth)
        r[i] = top - spread * max(ZERO, min(min(k, four - k), ONE))
        k = hue + three
        k -= six * np.floor(k * sixth)
        g[i] = top - spread * max(ZERO, min(min(k, four - k), ONE))
        k = hue + ONE
        k -= six * np.floor(k * sixth)
        b[i] = top - spread * max(ZERO, min(min(k, four - k), ONE))


@jit
def grey(r, g, b):
    for i in range(len(r)):
        luma = RED * r[i] + GREEN * g[i] + BLUE * b[i]
        r[i], g[i], b[i] = luma, luma, luma


@jit
def luma_sum(r, g, b):
    total = ZERO
    for i in range(len(r)):
        total += RED * r[i] + GREEN * g[i] + BLUE * b[i]
    return total


# ---------------------------------------------------------------------------------------------- blur


@jit
def blur_bytes(size, radius):
    return 2 * 3 * size * pitch_of(size) + 2 * (pitch_of(size) + 2 * radius + 64) + 2 * radius + 1024


@jit
def blur(row, size, planes, pool):
    """Separable Gaussian over the planes in place, borders reflected."""
    radius, pitch = row.radius, pitch_of(size)
    raw, pool = carve(pool, 2 * (radius + 1))
    weights = raw.view(np.int16)
    gaussian(row.sigma, radius, weights)
    raw, pool = carve(pool, 2 * (pitch + 2 * radius + WIDTH))
    line = raw.view(np.int16)
    raw, pool = carve(pool, 2 * 3 * size * pitch)
    other = raw.view(np.int16)
    for x in range(3 * size):
        along(planes, x * pitch, size, radius, weights, line, other)
    for channel in range(3):
        across(other, channel * size * pitch, size, radius, weights, planes)


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
def along(planes, at, size, radius, weights, line, other):
    """Filter one row along itself, through a copy with reflected ends."""
    for i in range(-radius, 0):
        line[i + radius] = planes[at + reflected(i, size)]
    line[radius : radius + size] = planes[at : at + size]
    for i in range(size, size + radius):
        line[i + radius] = planes[at + reflected(i, size)]
    zero = splat(np.int16(0))
    bias = splat(np.int16((radius + 1) // 2))
    for y in range(0, size, WIDTH):
        p = y + radius
        total = tap(bias, pair(load(line, p), zero), splat(weights[0]))
        for k in range(1, radius + 1):
            total = tap(total, pair(load(line, p - k), load(line, p + k)), splat(weights[k]))
        store(other, at + y, total)


@jit
def across(planes, at, size, radius, weights, other):
    """Filter one plane across its rows."""
    pitch = pitch_of(size)
    zero = splat(np.int16(0))
    bias = splat(np.int16((radius + 1) // 2))
    for x in range(size):
        for y in range(0, size, 2 * WIDTH):
            p = at + x * pitch + y
            weight = splat(weights[0])
            low = tap(bias, pair(load(planes, p), zero), weight)
            high = tap(bias, pair(load(planes, p + WIDTH), zero), weight)
            for k in range(1, radius + 1):
                left = at + reflected(x - k, size) * pitch + y
                right = at + reflected(x + k, size) * pitch + y
                weight = splat(weights[k])
                low = tap(low, pair(load(planes, left), load(planes, right)), weight)
                high = tap(high, pair(load(planes, left + WIDTH), load(planes, right + WIDTH)), weight)
            store(other, p, low)
            store(other, p + WIDTH, high)


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
