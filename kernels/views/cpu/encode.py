"""Write finished views on the CPU: solarise, normalise, convert and store in the batch's layout."""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit, jit_inline
from patchmill.kernels.common.simd import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    LANES,
    load,
    multiply_add,
    splat,
    store,
    transpose_block,
)
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, plane_pitch

SOLARISE_FROM = round(decisions.SOLARISE_FROM * UNIT)
BLOCK = BLOCK_COLUMNS  # rows of the view gathered at a time


@jit
def encode_bytes(size):
    """Scratch bytes that `encode_view` needs for a view of `size`."""
    return 2 * 3 * BLOCK * (plane_pitch(size) + 64) + 4 * plane_pitch(size) + 1024


@jit_inline
def encode_view(
    planes, size, transposed, solarised, scale, shift, half, channels_last, out, at, scratch
):  # fmt: skip
    """Write one view at `out[at:]`: normalised value = scale[c] * fixed point + shift[c].

    `half`: a 16-bit `out` is float16, not bfloat16.
    """
    pitch, block_pitch = plane_pitch(size), plane_pitch(size) + 32
    raw, scratch = carve(scratch, 2 * 3 * BLOCK * block_pitch)
    block = as_type(raw, np.int16)
    raw, scratch = carve(scratch, 4 * pitch)
    line = as_type(raw, np.float32)[:size]
    for y in range(0, size, BLOCK):
        for channel in range(3):
            gather_rows(
                planes, channel * size * pitch, size, y, transposed, block,
                channel * BLOCK * block_pitch,
            )  # fmt: skip
        for i in range(min(BLOCK, size - y)):
            for channel in range(3):
                start = (channel * BLOCK + i) * block_pitch
                if solarised:
                    solarise(block[start : start + size])
                gain, bias = scale[channel], shift[channel]
                if channels_last:
                    to, step = at + (y + i) * size * 3 + channel, 3
                else:
                    to, step = at + (channel * size + y + i) * size, 1
                convert_row(block, start, size, gain, bias, line, half, out, to, step)


@jit
def gather_rows(planes, at, size, y, transposed, block, to):
    """Copy rows y .. y + 7 of the view to `block`: columns of a transposed plane, or its rows."""
    pitch, block_pitch = plane_pitch(size), plane_pitch(size) + 32
    if transposed:
        for x in range(0, size, BLOCK_ROWS):
            transpose_block(planes, at + x * pitch + y, pitch, block, to + x, block_pitch)
    else:
        zero = splat(np.int16(0))
        for i in range(min(BLOCK, size - y)):
            for x in range(0, size, LANES):
                store(block, to + i * block_pitch + x, load(planes, at + (y + i) * pitch + x, zero))


@jit
def solarise(values):
    """Invert the values at or above SOLARISE_FROM, in place."""
    for x in range(len(values)):
        value = values[x]
        values[x] = np.int16(UNIT - value) if value >= SOLARISE_FROM else value


# ------------------------------------------------------------- conversion, chosen by out's dtype


def convert_row(values, start, size, gain, bias, line, half, out, to, step):  # type: ignore[no-untyped-def]
    """out[to::step] = gain * values + bias, in out's dtype; uint16 is bfloat16 or float16."""
    raise TypeError("only inside compiled code")


@overload(convert_row, jit_options={"fastmath": True})
def _convert_row(values, start, size, gain, bias, line, half, out, to, step):  # type: ignore[no-untyped-def]
    if out.dtype == types.float32:

        def to_float32(values, start, size, gain, bias, line, half, out, to, step):
            if step == 1 and size >= LANES:
                gains, biases = splat(gain), splat(bias)
                for chunk in range(0, size, LANES):
                    x = min(chunk, size - LANES)
                    store(out, to + x, multiply_add(biases, load(values, start + x, biases), gains))
            else:
                source, normalised = values[start : start + size], line[:size]
                for x in range(size):
                    normalised[x] = gain * source[x] + bias
                scatter_row(normalised, out, to, step)

        return to_float32
    # Loops over slices vectorise: their indices cannot be negative.
    if out.dtype == types.uint8:

        def to_uint8(values, start, size, gain, bias, line, half, out, to, step):
            source, staging = values[start : start + size], as_type(line, np.uint8)
            target = out[to : to + size] if step == 1 else staging[:size]
            for x in range(size):
                target[x] = np.uint8(np.int32(gain * source[x] + np.float32(0.5)))
            if step != 1:
                scatter_row(target, out, to, step)

        return to_uint8

    def to_16_bits(values, start, size, gain, bias, line, half, out, to, step):
        source, normalised = values[start : start + size], line[:size]
        for x in range(size):
            normalised[x] = gain * source[x] + bias
        bits, staging = as_type(normalised, np.uint32), as_type(normalised, np.uint16)
        target = out[to : to + size] if step == 1 else staging[:size]
        if half:
            for x in range(size):
                target[x] = half_bits(bits[x])
        else:
            for x in range(size):
                target[x] = bfloat16_bits(bits[x])
        if step != 1:
            scatter_row(target, out, to, step)

    return to_16_bits


@jit
def scatter_row(values, out, to, step):
    """out[to::step] = values."""
    row = out[to : to + (len(values) - 1) * step + 1]
    for x in range(len(values)):
        row[x * step] = values[x]


@jit
def bfloat16_bits(bits):
    """bfloat16 from float32 bits, rounded to nearest even; finite values only."""
    return np.uint16(
        (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    )


@jit
def half_bits(bits):
    """float16 from float32 bits, rounded to nearest even, for |value| < 65504; branch-free."""
    sign = (bits >> np.uint32(16)) & np.uint32(0x8000)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = (magnitude >> np.uint32(13)) & np.uint32(1)
    normal = (magnitude - np.uint32(0x38000000) + np.uint32(0x0FFF) + odd) >> np.uint32(13)
    # Subnormals (below 2**-14): adding 0.5 aligns the float32 mantissa to their unit, 2**-24.
    shifted = np.float32(magnitude.view(np.float32) + np.float32(0.5))
    subnormal = shifted.view(np.uint32) - np.uint32(0x3F000000)
    return np.uint16(sign | (subnormal if magnitude < np.uint32(0x38800000) else normal))
