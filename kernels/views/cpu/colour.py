"""Colour jitter and greyscale on the CPU's fixed-point planes.

The three channels of 32 pixels are loaded, go through all operations of the row in registers and
are stored: 12 bytes of traffic per pixel for any row. Contrast needs the mean luma: the operations
before it are then a separate pass. All lanes are unsigned 16-bit numbers.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee, jit_inline, jit_lanes
from patchmill.kernels.common.simd import (
    LANES,
    add,
    load,
    shift_left,
    shift_right,
    splat,
    store,
    subtract,
)
from patchmill.kernels.common.simd_pixels import (
    add_pairs,
    first_lanes,
    larger,
    magnitude,
    multiply_high,
    smaller,
    subtract_to_zero,
    sum_pairs,
    where_equal,
)
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, plane_pitch

NO_JITTER, GREY_FIRST, GREY_LAST = decisions.NO_JITTER, decisions.GREY_FIRST, decisions.GREY_LAST
BRIGHTNESS, CONTRAST, SATURATION, HUE = (
    decisions.BRIGHTNESS,
    decisions.CONTRAST,
    decisions.SATURATION,
    decisions.HUE,
)
GREY = 4  # follows the four operations of the jitter
DIGIT = 3  # bits of an operation in a program
RED_14, GREEN_14, BLUE_14 = (np.int16(round(weight * 16384)) for weight in decisions.LUMA)
ZERO, ONE, SIX = np.float32(0), np.float32(1), np.float32(6)
FIXED = np.float32(16384)  # 1.0 as a weight: times a value << 2, the high half is the product
ONE_16, UNIT_16 = np.int16(1), np.int16(UNIT)
# Vectors of the table of weights.
(
    BY_BRIGHTNESS, BY_CONTRAST, PLUS_MEAN, MINUS_MEAN, BY_SATURATION, PLUS_LUMA, MINUS_LUMA,
    FROM_RED, FROM_GREEN, FROM_BLUE,
) = range(10)  # fmt: skip
WEIGHT_BYTES = 10 * 2 * LANES
BAND = 32  # lines whose luma is accumulated in 32 bits


@jit_inline
def colour(row, size, planes, scratch):
    """Apply the row's greyscale and jitter, in the row's order, to the planes in place."""
    # The program: operations that change anything, DIGIT bits each, the first one lowest.
    program, length, contrast_at = 0, 0, -1
    if row.grey == GREY_FIRST:
        program, length = GREY, 1
    if row.order != NO_JITTER:
        for k in range(4):
            operation = (row.order >> 2 * k) & 3
            neutral = row.hue == ZERO
            if operation == BRIGHTNESS:
                neutral = row.brightness == ONE
            elif operation == CONTRAST:
                neutral = row.contrast == ONE
            elif operation == SATURATION:
                neutral = row.saturation == ONE
            if not neutral:
                if operation == CONTRAST:
                    contrast_at = length
                program |= operation << DIGIT * length
                length += 1
    if row.grey == GREY_LAST:
        program |= GREY << DIGIT * length
        length += 1
    # Contrast starts a second pass.
    raw, scratch = carve(scratch, WEIGHT_BYTES)
    weights, mean = as_type(raw, np.int16), ZERO
    for remaining in range((2 if contrast_at >= 0 else 1) if length > 0 else 0, 0, -1):
        measure = remaining == 2
        count = contrast_at if measure else length
        fill_weights(row, mean, weights)
        luma = apply_operations(program, count, measure, weights, size, planes)
        mean = np.float32(luma / (size * size))
        program >>= DIGIT * count
        length -= count


@jit_ieee
def fill_weights(row, mean, weights):
    """Fill `weights` with vectors of one number each, which the operations load when needed.

    If they stayed in registers, the compiler would keep them in the wrong width.
    """
    constant, turn = (ONE - row.contrast) * mean, SIX * row.hue
    set_weight(weights, BY_BRIGHTNESS, FIXED * row.brightness)
    set_weight(weights, BY_CONTRAST, FIXED * row.contrast)
    set_weight(weights, PLUS_MEAN, max(constant, ZERO))
    set_weight(weights, MINUS_MEAN, max(-constant, ZERO))
    set_weight(weights, BY_SATURATION, FIXED * row.saturation)
    set_weight(weights, PLUS_LUMA, FIXED * max(ONE - row.saturation, ZERO))
    set_weight(weights, MINUS_LUMA, FIXED * max(row.saturation - ONE, ZERO))
    for channel in range(3):
        sixths = turn + np.float32(2 * channel + 3)
        sixths -= SIX * np.rint((sixths - np.float32(4)) / SIX)
        set_weight(weights, FROM_RED + channel, sixths * (FIXED / np.float32(2)))


@jit_ieee
def set_weight(weights, which, value):
    """Fill one vector with a number of at most 16 bits, rounded."""
    number = np.int32(np.rint(min(value, np.float32(65535))))
    store(weights, which * LANES, splat(np.int16(number)))


@jit_ieee
def apply_operations(program, length, measure, weights, size, planes):
    """Apply the first `length` operations of the program; with `measure`, return the luma sum."""
    pitch = plane_pitch(size)
    plane, total = size * pitch, 0
    for band in range(0, size, BAND):
        sums = splat(np.int16(0))
        for x in range(band, min(band + BAND, size)):
            for y in range(0, size, LANES):
                p = x * pitch + y
                r, g, b = load_pixels(planes, p, plane, sums)
                code = program
                for _ in range(length):
                    operation = code & 7
                    code >>= DIGIT
                    if operation == HUE:
                        r, g, b = rotate_hue(r, g, b, weights)
                    elif operation == SATURATION:
                        r, g, b = saturate(r, g, b, weights)
                    elif operation == BRIGHTNESS:
                        r, g, b = brighten(r, g, b, weights)
                    elif operation == CONTRAST:
                        r, g, b = change_contrast(r, g, b, weights)
                    else:
                        luma = luma_of(shift_left(r, 2), shift_left(g, 2), shift_left(b, 2))
                        r, g, b = luma, luma, luma
                if length > 0:
                    store_pixels(planes, p, plane, r, g, b)
                if measure:
                    luma = luma_of(shift_left(r, 2), shift_left(g, 2), shift_left(b, 2))
                    sums = add_pairs(sums, first_lanes(luma, size - y))
        total += sum_pairs(sums)
    return total


@jit_lanes
def load_pixels(planes, p, plane, like):
    """Load red, green and blue of the pixels from `p`."""
    return load(planes, p, like), load(planes, p + plane, like), load(planes, p + 2 * plane, like)


@jit_lanes
def store_pixels(planes, p, plane, r, g, b):
    """Write red, green and blue of the pixels from `p`."""
    store(planes, p, r)
    store(planes, p + plane, g)
    store(planes, p + 2 * plane, b)


@jit_lanes
def weight(weights, which):
    """One vector of the table."""
    return load(weights, which * LANES, splat(np.int16(0)))


@jit_lanes
def luma_of(r, g, b):
    """Luma of lanes that hold four times their value; below four times UNIT, like them."""
    total = add(multiply_high(r, splat(RED_14)), splat(ONE_16))
    total = add(total, multiply_high(g, splat(GREEN_14)))
    return smaller(add(total, multiply_high(b, splat(BLUE_14))), splat(UNIT_16))


@jit_lanes
def scaled(value, factor):
    """value * factor, at most four times UNIT."""
    return multiply_high(shift_left(value, 2), factor)


@jit_lanes
def brighten(r, g, b, weights):
    """min(factor * value, UNIT)."""
    factor, top = weight(weights, BY_BRIGHTNESS), splat(UNIT_16)
    return (
        smaller(scaled(r, factor), top),
        smaller(scaled(g, factor), top),
        smaller(scaled(b, factor), top),
    )


@jit_lanes
def change_contrast(r, g, b, weights):
    """clamp(factor * value + (1 - factor) * mean)."""
    factor = weight(weights, BY_CONTRAST)
    plus, minus = weight(weights, PLUS_MEAN), weight(weights, MINUS_MEAN)
    return (
        shifted(scaled(r, factor), plus, minus),
        shifted(scaled(g, factor), plus, minus),
        shifted(scaled(b, factor), plus, minus),
    )


@jit_lanes
def shifted(value, plus, minus):
    """clamp(value + plus - minus), where one of the two is zero; `plus` only below UNIT."""
    return smaller(subtract_to_zero(add(value, plus), minus), splat(UNIT_16))


@jit_lanes
def saturate(r, g, b, weights):
    """clamp(factor * value + (1 - factor) * luma)."""
    r, g, b = shift_left(r, 2), shift_left(g, 2), shift_left(b, 2)
    luma, factor = shift_left(luma_of(r, g, b), 2), weight(weights, BY_SATURATION)
    plus = multiply_high(luma, weight(weights, PLUS_LUMA))
    minus = multiply_high(luma, weight(weights, MINUS_LUMA))
    return (
        shifted(multiply_high(r, factor), plus, minus),
        shifted(multiply_high(g, factor), plus, minus),
        shifted(multiply_high(b, factor), plus, minus),
    )


@jit_lanes
def rotate_hue(r, g, b, weights):
    """Rotate the HSV hue: torchvision's adjust_hue, without branches and without a division.

    With chroma C = max - min and the new hue h in sixths of a turn, -3 to 3, the channels are max -
    C clamp(|h| - 1), max - C clamp(2 - |h + 1|), max - C clamp(2 - |h - 1|), where C clamp(x) =
    clamp(C x, 0, C). The old hue is the difference of two channels over C, plus 0, 2 or 4 if red,
    green or blue is the largest. So C (h + 3) is a difference plus C times one of three numbers,
    which are brought to 1 .. 7. Lanes hold half of it: at most 4 C, just below 2**16.
    """
    top = larger(larger(r, g), b)
    chroma = subtract(top, smaller(smaller(r, g), b))
    rise = where_equal(top, g, subtract(b, r), subtract(r, g))
    rise = where_equal(top, r, subtract(g, b), rise)
    base = where_equal(top, g, weight(weights, FROM_GREEN), weight(weights, FROM_BLUE))
    base = where_equal(top, r, weight(weights, FROM_RED), base)
    rise = shift_right(add(rise, splat(ONE_16)), 1)
    hue = add(multiply_high(shift_left(chroma, 2), base), rise)
    half, twice = shift_right(chroma, 1), shift_left(chroma, 1)
    half_turn = add(chroma, half)
    hue = smaller(hue, subtract(hue, add(half_turn, half_turn)))
    hue = subtract(hue, half_turn)
    from_red = shift_left(magnitude(hue), 1)
    from_magenta = shift_left(magnitude(add(hue, half)), 1)
    from_yellow = shift_left(magnitude(subtract(hue, half)), 1)
    return (
        subtract(top, smaller(subtract_to_zero(from_red, chroma), chroma)),
        subtract(top, smaller(subtract_to_zero(twice, from_magenta), chroma)),
        subtract(top, smaller(subtract_to_zero(twice, from_yellow), chroma)),
    )
