"""From planes to the batch's memory: solarise, normalise, convert, in the tensor's own layout."""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload

from patchmill.kernels.common.jit import jit
from patchmill.kernels.common.simd import (
    TALL,
    WIDE,
    WIDTH,
    load,
    splat,
    store,
    tap,
    transpose_block,
)
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, pitch_of

SOLARISE_FROM = round(decisions.SOLARISE_FROM * UNIT)
BLOCK = WIDE


@jit
def finish_bytes(size):
    return 2 * 3 * BLOCK * (pitch_of(size) + 64) + 4 * pitch_of(size) + 1024


@jit
def finish(planes, size, transposed, solarised, scale, shift, half, channels_last, out, at, pool):
    """Write one view at `out[at:]`: normalised value = scale[c] * fixed point + shift[c]."""
    pitch, wide = pitch_of(size), pitch_of(size) + 32
    raw, pool = carve(pool, 2 * 3 * BLOCK * wide)
    block = raw.view(np.int16)
    raw, pool = carve(pool, 4 * pitch)
    line = raw.view(np.float32)[:size]
    for y in range(0, size, BLOCK):
        for channel in range(3):
            gather(
                planes, channel * size * pitch, size, y, transposed, block, channel * BLOCK * wide
            )
        for i in range(min(BLOCK, size - y)):
            for channel in range(3):
                start = (channel * BLOCK + i) * wide
                if solarised:
                    solarise(block[start : start + size])
                gain, offset = scale[channel], shift[channel]
                if channels_last:
                    to, step = at + (y + i) * size * 3 + channel, 3
                else:
                    to, step = at + (channel * size + y + i) * size, 1
                encode(block, start, size, gain, offset, line, half, out, to, step)


@jit
def gather(planes, at, size, y, transposed, block, to):
    """Rows y to y + 8 of the picture: columns of a plane that lies on its side, or plain rows."""
    pitch, wide = pitch_of(size), pitch_of(size) + 32
    if transposed:
        for x in range(0, size, TALL):
            transpose_block(planes, at + x * pitch + y, pitch, block, to + x, wide)
    else:
        zero = splat(np.int16(0))
        for i in range(min(BLOCK, size - y)):
            for x in range(0, size, WIDTH):
                store(block, to + i * wide + x, load(planes, at + (y + i) * pitch + x, zero))


@jit
def solarise(values):
    for x in range(len(values)):
        value = values[x]
        values[x] = np.int16(UNIT - value) if value >= SOLARISE_FROM else value


# ------------------------------------------------------------- number formats, chosen by out's type


def encode(values, start, size, gain, offset, line, half, out, to, step):  # type: ignore[no-untyped-def]
    """out[to::step] = gain * values + offset, in out's type; uint16 holds bfloat16 or half."""
    raise TypeError("only inside compiled code")


@overload(encode, jit_options={"fastmath": True})
def _encode(values, start, size, gain, offset, line, half, out, to, step):  # type: ignore[no-untyped-def]
    if out.dtype == types.float32:

        def floats(values, start, size, gain, offset, line, half, out, to, step):
            if step == 1 and size >= WIDTH:
                factor, rest = splat(gain), splat(offset)
                for lane in range(0, size, WIDTH):
                    x = min(lane, size - WIDTH)
                    store(out, to + x, tap(rest, load(values, start + x, rest), factor))
            else:
                source, numbers = values[start : start + size], line[:size]
                for x in range(size):
                    numbers[x] = gain * source[x] + offset
                scatter(numbers, out, to, step)

        return floats
    # Slices, because loops over them are vectorised: their indices cannot be negative.
    if out.dtype == types.uint8:

        def octets(values, start, size, gain, offset, line, half, out, to, step):
            source, done = values[start : start + size], line.view(np.uint8)
            made = out[to : to + size] if step == 1 else done[:size]
            for x in range(size):
                made[x] = np.uint8(np.int32(gain * source[x] + np.float32(0.5)))
            if step != 1:
                scatter(made, out, to, step)

        return octets

    def sixteen_bits(values, start, size, gain, offset, line, half, out, to, step):
        source, numbers = values[start : start + size], line[:size]
        for x in range(size):
            numbers[x] = gain * source[x] + offset
        bits, done = numbers.view(np.uint32), numbers.view(np.uint16)
        made = out[to : to + size] if step == 1 else done[:size]
        if half:
            for x in range(size):
                made[x] = half_bits(bits[x])
        else:
            for x in range(size):
                made[x] = bfloat16_bits(bits[x])
        if step != 1:
            scatter(made, out, to, step)

    return sixteen_bits


@jit
def scatter(made, out, to, step):
    row = out[to : to + (len(made) - 1) * step + 1]
    for x in range(len(made)):
        row[x * step] = made[x]


@jit
def bfloat16_bits(bits):
    """Round to nearest, ties to even; values here are finite."""
    return np.uint16(
        (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    )


@jit
def half_bits(bits):
    """IEEE half from float32 bits, round to nearest even, for |value| < 65504; no branches."""
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = (magnitude >> np.uint32(13)) & np.uint32(1)
    normal = (magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd) >> np.uint32(13)
    # Below 2**-14 a half counts in units of 2**-24, which adding 0.5 makes the unit of a float32.
    shifted = np.float32(magnitude.view(np.float32) + np.float32(0.5))
    small = shifted.view(np.uint32) - np.uint32(0x3F000000)
    return np.uint16(sign | (small if magnitude < np.uint32(0x38800000) else normal))
