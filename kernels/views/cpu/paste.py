"""Copy-paste on the CPU: composite the planes onto their background, between resize and colour.

The mask is resampled like a one-channel image, in float32: in constant areas the background's alpha
is exactly 0 or 1. Compositing reads 8 bytes per pixel and writes 6.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee, jit_inline
from patchmill.kernels.common.simd import (
    LANES,
    absolute,
    add,
    load,
    multiply,
    multiply_add,
    shift_left,
    shift_right,
    splat,
    splat_at,
    store,
    subtract,
)
from patchmill.kernels.views.cpu.resize import (
    CHUNK,
    UNIT,
    block_bytes,
    carve,
    filter_rows,
    pad_rows,
    plane_pitch,
    resample,
    resize_bytes,
)
from patchmill.kernels.views.cpu.taps import (
    BILINEAR,
    SPLINE,
    filter_taps,
    max_taps,
    normalise_weights,
    source_range,
)
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, PASTE_NEVER

LEVEL = UNIT // 255
OPAQUE = 32768  # alpha 1.0; int16 planes hold -alpha, since 32768 does not fit
FROM_FILTER = np.float32(OPAQUE / (255 * 128))
WORD = np.uint64(0xFFFFFFFF)
ZERO_16, ZERO, HALF = np.int16(0), np.float32(0), np.float32(0.5)


@jit_ieee
def paste_bytes(mask_height, mask_width, background_height, background_width, size):
    """Scratch bytes that `paste` needs for a mask, a background image and a view of these sizes."""
    pitch = plane_pitch(size)
    tap_bytes = 4 * size * (mask_height + mask_width)  # never more taps than mask pixels
    mask = 4 * 8 * size + tap_bytes + CHUNK * mask_height + block_bytes(mask_height)
    mask += 4 * LANES * max(mask_width, CHUNK) + 4 * LANES
    background = resize_bytes(background_height, background_width, size)
    return 2 * 4 * size * pitch + max(mask, background) + 4096


@jit_inline
def paste(height, width, mask, background, row, size, reverse_x, reverse_y, planes, scratch):
    """Composite the view of a height x width image onto the background that the row names.

    `mask` (uint8 HW) and `background` (uint8 HWC) are empty arrays if the image has none; a view
    that would need one stays unchanged.
    """
    kind = row.paste
    if kind == PASTE_NEVER or mask.size == 0 or (kind == ON_IMAGE and background.size == 0):
        return
    pixels = size * plane_pitch(size)
    raw, scratch = carve(scratch, 2 * pixels)
    minus_alpha = as_type(raw, np.int16)
    mask_to_alpha(height, width, mask, row, size, reverse_x, reverse_y, minus_alpha, scratch)
    if kind == ON_GREY:
        composite_level(np.int16(row.background * LEVEL), minus_alpha, size, planes)
        return
    raw, scratch = carve(scratch, 2 * 3 * pixels)
    pasted = as_type(raw, np.int16)
    if kind == ON_IMAGE:
        resample_background(
            height, width, background, row, size, reverse_x, reverse_y, pasted, scratch
        )
    else:
        texture(row, size, reverse_x, reverse_y, pasted, scratch)
    composite(pasted, minus_alpha, size, planes)


@jit_inline
def composite_level(level, minus_alpha, size, planes):
    """Composite the planes onto one grey level, in place."""
    pitch, level = plane_pitch(size), splat(level)
    for channel in range(3):
        at = channel * size * pitch
        for x in range(0, size * pitch, LANES):
            front = load(planes, at + x, level)
            difference = shift_left(subtract(front, level), 1)
            store(planes, at + x, multiply_add(front, difference, load(minus_alpha, x, level)))


@jit_ieee
def composite(pasted, minus_alpha, size, planes):
    """Composite the planes onto the planes `pasted`, in place."""
    pitch, like = plane_pitch(size), splat(ZERO_16)
    for channel in range(3):
        at = channel * size * pitch
        for x in range(0, size * pitch, LANES):
            front = load(planes, at + x, like)
            difference = shift_left(subtract(front, load(pasted, at + x, like)), 1)
            store(planes, at + x, multiply_add(front, difference, load(minus_alpha, x, like)))


# ------------------------------------------------------------------------------------------ mask


@jit_ieee
def mask_to_alpha(height, width, mask, row, size, reverse_x, reverse_y, minus_alpha, scratch):
    """Fill `minus_alpha` with the background's -alpha per pixel (OPAQUE is 1.0), 0 off the image.

    The mask is resampled at the view's pixels, and blurred if the row says so.
    """
    # Filter tables of both axes.
    raw, scratch = carve(scratch, 4 * 4 * size)
    index = as_type(raw, np.int32)
    begin_y, inside_y = index[:size], index[size : 2 * size]
    begin_x, inside_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, scratch = carve(scratch, 4 * 2 * size)
    workspace = as_type(raw, np.float32)
    taps_y, weight_y, scratch = mask_taps(
        mask.shape[0], height, row.box_y, row.box_h, row.full_h, row.win_y, size, row.mask_sigma,
        reverse_y, begin_y, inside_y, workspace, scratch,
    )  # fmt: skip
    taps_x, weight_x, scratch = mask_taps(
        mask.shape[1], width, row.box_x, row.box_w, row.full_w, row.win_x, size, row.mask_sigma,
        reverse_x, begin_x, inside_x, workspace, scratch,
    )  # fmt: skip
    # Crop to the columns that the window needs.
    start, stop = source_range(begin_x, taps_x)
    for j in range(size):
        begin_x[j] -= start
    pixels, pitch, offset, length = mask.reshape(mask.size), mask.shape[1], start, stop - start
    if length < CHUNK:
        wide_rows, scratch = carve(scratch, CHUNK * mask.shape[0])
        pad_rows(pixels, offset, pitch, length, mask.shape[0], wide_rows)
        pixels, pitch, offset, length = wide_rows, CHUNK, 0, CHUNK
    raw, scratch = carve(scratch, 4 * LANES * length)
    tile = as_type(raw, np.float32)
    raw, scratch = carve(scratch, 4 * LANES)
    line = as_type(raw, np.float32)
    zero, alpha_pitch = splat(ZERO), plane_pitch(size)
    for first in range(0, size, LANES):
        filter_rows(
            pixels, pitch, offset, length, first, size,
            begin_y, inside_y, taps_y, weight_y, 0, 0, tile, scratch,
        )  # fmt: skip
        # Horizontal pass, and conversion to -alpha.
        for i in range(size):
            total, source, tap = zero, begin_x[i] * LANES, i
            for _ in range(taps_x):
                total = multiply_add(total, load(tile, source, zero), splat_at(weight_x, tap))
                source += LANES
                tap += size
            store(line, 0, total)
            to = i * alpha_pitch + first
            for y in range(min(LANES, size - first)):
                value = np.int32(line[y] * FROM_FILTER + HALF)
                inside = inside_x[i] != 0 and inside_y[first + y] != 0
                minus_alpha[to + y] = min(value, np.int32(OPAQUE)) - OPAQUE if inside else 0


@jit_ieee
def mask_taps(
    length, side, box, box_side, full, first, size, mask_sigma, reverse,
    begins, inside, workspace, scratch,
):  # fmt: skip
    """Taps along a mask side of `length` that covers an image side of `side`, and their weights.

    See `reference_paste.weights` for the filter.
    """
    ratio = length / side
    step = box_side / full * ratio
    unit, kernel = max(step, 1.0), BILINEAR
    if mask_sigma > 0:
        unit, kernel = np.sqrt(3.0 * (mask_sigma * ratio) ** 2 + 0.5 * unit * unit), SPLINE
    raw, scratch = carve(scratch, 4 * size * min(max_taps(unit, kernel), length))
    weights = as_type(raw, np.float32)
    total, nearest = workspace[:size], workspace[size : 2 * size]
    taps = filter_taps(
        length, box * ratio, step, full, first, size, kernel, unit, reverse,
        begins, inside, weights, total, nearest,
    )  # fmt: skip
    normalise_weights(weights, total, taps)
    return taps, weights, scratch


# ------------------------------------------------------------------------------------ backgrounds


@jit_inline
def resample_background(height, width, image, row, size, reverse_x, reverse_y, pasted, scratch):
    """Resample the part of the background image behind the view, enlarged to cover the image."""
    background_height, background_width = image.shape[0], image.shape[1]
    zoom = max(max(height / background_height, width / background_width), 1.0)
    y = (row.box_y + row.background_y * (zoom * background_height - height)) / zoom
    x = (row.box_x + row.background_x * (zoom * background_width - width)) / zoom
    step_y, step_x = row.box_h / row.full_h / zoom, row.box_w / row.full_w / zoom
    resample(
        image, BILINEAR, size, pasted, scratch,
        0, background_height, y, step_y, row.full_h, row.win_y, reverse_y,
        0, background_width, x, step_x, row.full_w, row.win_x, reverse_x,
    )  # fmt: skip


@jit_ieee
def texture(row, size, reverse_x, reverse_y, pasted, scratch):
    """Fill `pasted` with `reference_paste.texture`, in wrapping int16 arithmetic."""
    first_colour, last_colour = hash32(row.background, 4), hash32(row.background, 5)
    zoom, pitch = first_colour >> 24 & 3, plane_pitch(size)
    raw, scratch = carve(scratch, 2 * 4 * pitch)
    ramps = as_type(raw, np.int16)  # phase of each of the four waves along a row
    raw, scratch = carve(scratch, 2 * 4 * 3)
    parameters = as_type(raw, np.int16)
    start, slope, bend = parameters[:4], parameters[4:8], parameters[8:12]
    # Parameters of the four waves, and their phases along a row.
    for octave in range(4):
        bits = hash32(row.background, octave)
        octave_shift = octave + zoom
        start[octave], bend[octave] = (bits >> 20 & 255) << 8, bits >> 28
        slope[octave] = ((bits >> 10 & 1023) - 512) << octave_shift
        for y in range(size):
            pixel_y = row.win_y + (size - 1 - y if reverse_y else y)
            ramps[octave * pitch + y] = (((bits & 1023) - 512) << octave_shift) * pixel_y
    # Sum of the waves, then a colour between the two.
    zero, middle, half = splat(ZERO_16), splat(np.int16(7680)), splat(np.int16(32767))
    for x in range(size):
        pixel_x = row.win_x + (size - 1 - x if reverse_x else x)
        for y in range(0, size, LANES):
            wave, total = zero, middle
            for octave in range(4):
                phase = add(
                    splat(np.int16(start[octave] + slope[octave] * pixel_x)),
                    load(ramps, octave * pitch + y, zero),
                )
                phase = add(phase, multiply(wave, splat(bend[octave])))
                wave = multiply_add(zero, phase, subtract(half, absolute(phase)))
                total = add(total, shift_right(wave, octave))
            total = shift_left(total, 1)
            for channel in range(3):
                a, b = first_colour >> 8 * channel & 255, last_colour >> 8 * channel & 255
                gain = np.int16(np.rint((b - a) * (LEVEL * 32768 / 30720)))
                colour = multiply_add(splat(np.int16(a * (LEVEL // 2))), total, splat(gain))
                store(pasted, (channel * size + x) * pitch + y, shift_left(colour, 1))


@jit_ieee
def hash32(seed, index):
    """`reference_paste.hash32`, as an int64."""
    bits = (np.uint64(seed) + np.uint64(0x9E3779B9) * np.uint64(index + 1)) & WORD
    bits = ((bits ^ bits >> np.uint64(16)) * np.uint64(0x7FEB352D)) & WORD
    bits = ((bits ^ bits >> np.uint64(15)) * np.uint64(0x846CA68B)) & WORD
    return np.int64(bits ^ bits >> np.uint64(16))
