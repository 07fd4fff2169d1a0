"""Copy-paste on the CPU: between resize and colour, the planes get their background in place.

The mask is one more picture that is resampled, of one channel, in float32: where it is all one
value the share of the background is exactly none or all. Mixing reads 8 bytes a pixel and writes 6.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.kernels.common.simd import (
    WIDTH,
    doubled,
    folded,
    halved,
    load,
    minus,
    plus,
    splat,
    store,
    tap,
    times,
)
from patchmill.kernels.views.cpu.resize import (
    BILINEAR,
    CHUNK,
    SPLINE,
    STRIP,
    UNIT,
    carve,
    combine_rows,
    most_taps,
    padded,
    pitch_of,
    resize_bytes,
    sample,
    taps,
    turn,
    used,
    widen,
)
from patchmill.kernels.views.decisions import ON_GREY, ON_IMAGE, PASTE_NEVER

LEVEL = UNIT // 255
ALL = 32768  # the share of a pixel that is background, which is kept as its negative
FROM_FILTER = np.float32(ALL / (255 * 128))
WORD = np.uint64(0xFFFFFFFF)
ZERO_16, ZERO, HALF = np.int16(0), np.float32(0), np.float32(0.5)


@jit
def paste_bytes(mask_height, mask_width, ground_height, ground_width, size):
    """Scratch that `paste` carves for a mask, a companion and a view of these sizes."""
    pixels = size * pitch_of(size)
    both_axes = mask_height + mask_width  # nowhere more taps than there are pixels
    mask = 4 * 8 * size + 4 * size * both_axes + CHUNK * mask_height
    mask += 4 * (padded(mask_width) + CHUNK) * (STRIP + pitch_of(size)) + 4 * pitch_of(size)
    return 2 * 4 * pixels + max(mask, resize_bytes(ground_height, ground_width, size)) + 4096


@jit
def paste(height, width, mask, companion, row, size, reverse_x, reverse_y, planes, pool):
    """Give the planes of a view of a height x width image the background that the row names."""
    kind = row.paste
    if kind == PASTE_NEVER or mask.size == 0 or (kind == ON_IMAGE and companion.size == 0):
        return
    pixels = size * pitch_of(size)
    raw, pool = carve(pool, 2 * pixels)
    share = raw.view(np.int16)
    shown(height, width, mask, row, size, reverse_x, reverse_y, share, pool)
    if kind == ON_GREY:
        mix_level(np.int16(row.ground * LEVEL), share, size, planes)
        return
    raw, pool = carve(pool, 2 * 3 * pixels)
    ground = raw.view(np.int16)
    if kind == ON_IMAGE:
        behind(height, width, companion, row, size, reverse_x, reverse_y, ground, pool)
    else:
        texture(row, size, reverse_x, reverse_y, ground, pool)
    mix(ground, share, size, planes)


@jit
def mix_level(level, share, size, planes):
    pitch, level = pitch_of(size), splat(level)
    for channel in range(3):
        at = channel * size * pitch
        for x in range(0, size * pitch, WIDTH):
            front = load(planes, at + x, level)
            lacks = doubled(minus(front, level), 1)
            store(planes, at + x, tap(front, lacks, load(share, x, level)))


@jit
def mix(ground, share, size, planes):
    pitch, like = pitch_of(size), splat(ZERO_16)
    for channel in range(3):
        at = channel * size * pitch
        for x in range(0, size * pitch, WIDTH):
            front = load(planes, at + x, like)
            lacks = doubled(minus(front, load(ground, at + x, like)), 1)
            store(planes, at + x, tap(front, lacks, load(share, x, like)))


# --------------------------------------------------------------------------------------- the mask


@jit
def shown(height, width, mask, row, size, reverse_x, reverse_y, share, pool):
    """Minus the background's share of each pixel, of which ALL is all; none outside of the image.

    What the mask has at the view's places, blurred where the row says so.
    """
    raw, pool = carve(pool, 4 * 4 * size)
    index = raw.view(np.int32)
    begin_y, count_y = index[:size], index[size : 2 * size]
    begin_x, count_x = index[2 * size : 3 * size], index[3 * size : 4 * size]
    raw, pool = carve(pool, 4 * 2 * size)
    spare = raw.view(np.float32)
    weight_y, pool = mask_taps(
        mask.shape[0], height, row.box_y, row.box_h, row.full_h, row.win_y, size, row.soft,
        reverse_y, begin_y, count_y, spare, pool,
    )  # fmt: skip
    weight_x, pool = mask_taps(
        mask.shape[1], width, row.box_x, row.box_w, row.full_w, row.win_x, size, row.soft,
        reverse_x, begin_x, count_x, spare, pool,
    )  # fmt: skip
    start, stop = used(begin_x, count_x)
    for j in range(size):
        begin_x[j] -= start
    pixels, pitch, offset, length = mask.reshape(mask.size), mask.shape[1], start, stop - start
    if length < CHUNK:
        narrow, pool = carve(pool, CHUNK * mask.shape[0])
        widen(pixels, offset, pitch, length, mask.shape[0], narrow)
        pixels, pitch, offset, length = narrow, CHUNK, 0, CHUNK
    strip_pitch, across_pitch = padded(length), pitch_of(size)
    raw, pool = carve(pool, 4 * STRIP * strip_pitch)
    strip = raw.view(np.float32)
    raw, pool = carve(pool, 4 * strip_pitch * across_pitch)
    across = raw.view(np.float32)
    raw, pool = carve(pool, 4 * across_pitch)
    line = raw.view(np.float32)
    for first in range(0, size, STRIP):
        for i in range(first, min(first + STRIP, size)):
            combine_rows(
                pixels, offset + begin_y[i] * pitch, pitch, length, count_y[i], weight_y, i, size,
                0, 0, strip, (i - first) * strip_pitch,
            )  # fmt: skip
        turn(strip, strip_pitch, across, across_pitch, first)
    for i in range(size):
        own = share[i * across_pitch : (i + 1) * across_pitch]
        if count_x[i] == 0:
            own[:] = 0
            continue
        zero = splat(ZERO)
        for y in range(0, size, WIDTH):
            total, p, v = zero, begin_x[i] * across_pitch + y, i
            for _ in range(count_x[i]):
                total = tap(total, load(across, p, zero), splat(weight_x[v]))
                p += across_pitch
                v += size
            store(line, y, total)
        for y in range(size):
            held = np.int32(line[y] * FROM_FILTER + HALF)
            own[y] = min(held, np.int32(ALL)) - ALL if count_y[y] > 0 else 0


@jit
def mask_taps(
    length, side, box, box_side, full, first, size, soft, reverse, begins, counts, spare, pool
):  # fmt: skip
    """Of a mask's side of `length`, which covers the image's `side`; see `reference_paste`."""
    ratio = length / side
    step = box_side / full * ratio
    unit, kernel = max(step, 1.0), BILINEAR
    if soft > 0:
        unit, kernel = np.sqrt(3.0 * (soft * ratio) ** 2 + 0.5 * unit * unit), SPLINE
    raw, pool = carve(pool, 4 * size * min(most_taps(unit, kernel), length))
    weights = raw.view(np.float32)
    taps(
        length, box * ratio, step, full, first, size, kernel, unit, reverse,
        begins, counts, weights, spare,
    )  # fmt: skip
    return weights, pool


# ------------------------------------------------------------------------------------ backgrounds


@jit
def behind(height, width, image, row, size, reverse_x, reverse_y, ground, pool):
    """The part of another image that the view shows, once it is as large as its own."""
    tall, wide = image.shape[0], image.shape[1]
    zoom = max(max(height / tall, width / wide), 1.0)
    y = (row.box_y + row.ground_y * (zoom * tall - height)) / zoom
    x = (row.box_x + row.ground_x * (zoom * wide - width)) / zoom
    step_y, step_x = row.box_h / row.full_h / zoom, row.box_w / row.full_w / zoom
    sample(
        image, BILINEAR, size, ground, pool,
        0, tall, y, step_y, row.full_h, row.win_y, reverse_y,
        0, wide, x, step_x, row.full_w, row.win_x, reverse_x,
    )  # fmt: skip


@jit
def texture(row, size, reverse_x, reverse_y, ground, pool):
    """See `reference_paste.texture`: whole numbers, of which only the lowest 16 bits count."""
    front, back = hashed(row.ground, 4), hashed(row.ground, 5)
    zoom, pitch = front >> 24 & 3, pitch_of(size)
    raw, pool = carve(pool, 2 * 4 * pitch)
    ramps = raw.view(np.int16)  # what each of the four waves gains along a line
    raw, pool = carve(pool, 2 * 4 * 3)
    facts = raw.view(np.int16)
    start, slope, bend = facts[:4], facts[4:8], facts[8:12]
    for octave in range(4):
        bits = hashed(row.ground, octave)
        fast = octave + zoom
        start[octave], bend[octave] = (bits >> 20 & 255) << 8, bits >> 28
        slope[octave] = ((bits >> 10 & 1023) - 512) << fast
        for y in range(size):
            place = row.win_y + (size - 1 - y if reverse_y else y)
            ramps[octave * pitch + y] = (((bits & 1023) - 512) << fast) * place
    zero, middle, half = splat(ZERO_16), splat(np.int16(7680)), splat(np.int16(32767))
    for x in range(size):
        place = row.win_x + (size - 1 - x if reverse_x else x)
        for y in range(0, size, WIDTH):
            wave, total = zero, middle
            for octave in range(4):
                turn = plus(
                    splat(np.int16(start[octave] + slope[octave] * place)),
                    load(ramps, octave * pitch + y, zero),
                )
                turn = plus(turn, times(wave, splat(bend[octave])))
                wave = tap(zero, turn, minus(half, folded(turn)))
                total = plus(total, halved(wave, octave))
            total = doubled(total, 1)
            for channel in range(3):
                a, b = front >> 8 * channel & 255, back >> 8 * channel & 255
                gain = np.int16(np.rint((b - a) * (LEVEL * 32768 / 30720)))
                colour = tap(splat(np.int16(a * (LEVEL // 2))), total, splat(gain))
                store(ground, (channel * size + x) * pitch + y, doubled(colour, 1))


@jit
def hashed(seed, index):
    """As `reference_paste.hashed`; a positive number of 64 bits, of which 32 are used."""
    bits = (np.uint64(seed) + np.uint64(0x9E3779B9) * np.uint64(index + 1)) & WORD
    bits = ((bits ^ bits >> np.uint64(16)) * np.uint64(0x7FEB352D)) & WORD
    bits = ((bits ^ bits >> np.uint64(15)) * np.uint64(0x846CA68B)) & WORD
    return np.int64(bits ^ bits >> np.uint64(16))
