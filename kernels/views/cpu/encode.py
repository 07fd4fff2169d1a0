"""Write finished views on the CPU: solarise, normalise, convert and store in the batch's layout.

32 values at a time go from the planes to the batch in registers. Transposed planes are transposed
back first, a block of lines at a time, which stays in the L1 cache.
"""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload

from patchmill.kernels.common.array_views import as_type
from patchmill.kernels.common.jit import jit_ieee, jit_inline, jit_lanes
from patchmill.kernels.common.simd import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    LANES,
    add,
    load,
    multiply_add,
    shift_right,
    splat,
    store,
    subtract,
    transpose_block,
)
from patchmill.kernels.common.simd_pixels import (
    store_interleaved,
    to_bfloat16,
    to_bytes,
    to_float32,
    to_half,
    where_above,
)
from patchmill.kernels.views import decisions
from patchmill.kernels.views.cpu.resize import UNIT, carve, plane_pitch

UNIT_16 = np.int16(UNIT)
SOLARISE_ABOVE = np.int16(round(decisions.SOLARISE_FROM * UNIT) - 1)
BLOCK = LANES  # rows of the view transposed back at a time: whole cache lines of the planes
HALF_LEVEL, LEVEL_BITS = np.int16(UNIT // 255 // 2), (UNIT // 255).bit_length() - 1
BYTES_OF_A_LINE = 3 * LANES * 4


@jit_ieee
def encode_bytes(size):
    """Scratch bytes that `encode_view` needs for a view of `size`."""
    return 2 * 3 * BLOCK * (plane_pitch(size) + LANES) + BYTES_OF_A_LINE + 1024


@jit_inline
def encode_view(planes, transposed, row, slot, half, channels_last, out, at, scratch):
    """Write one view at `out[at:]`, normalised by the slot's scale and shift unless `out` is bytes.

    `half`: a 16-bit `out` is float16, not bfloat16.
    """
    size = slot.size
    raw, scratch = carve(scratch, 2 * 3 * BLOCK * (plane_pitch(size) + LANES))
    block = as_type(raw, np.int16)
    raw, scratch = carve(scratch, BYTES_OF_A_LINE)
    line = as_type(raw, out.dtype)
    pitch, plane = plane_pitch(size), size * plane_pitch(size)
    block_pitch, block_plane = pitch + LANES, BLOCK * (pitch + LANES)
    for y in range(0, size, BLOCK if transposed else size):
        if transposed:
            transpose_back(planes, size, y, block, block_pitch, block_plane)
        encode_rows(
            block if transposed else planes, block_pitch if transposed else pitch,
            block_plane if transposed else plane, y, min(y + BLOCK, size) if transposed else size,
            row, slot, half, channels_last, out, at, line,
        )  # fmt: skip


@jit_ieee
def transpose_back(planes, size, y, block, block_pitch, block_plane):
    """Copy rows y to y + BLOCK - 1 of the view, which are columns of the planes, to `block`."""
    pitch = plane_pitch(size)
    for channel in range(3):
        at, to = channel * size * pitch + y, channel * block_plane
        for x in range(0, size, BLOCK_ROWS):
            for i in range(0, min(BLOCK, size - y), BLOCK_COLUMNS):
                transpose_block(
                    planes, at + x * pitch + i, pitch, block, to + i * block_pitch + x, block_pitch
                )


@jit_ieee
def encode_rows(
    values, pitch, plane, first, stop, row, slot, half, channels_last, out, at, line
):  # fmt: skip
    """Write rows `first` to `stop` - 1 of the view at `out[at:]`, from the rows in `values`."""
    size, scale, shift = slot.size, slot.scale, slot.shift
    for y in range(first, stop):
        start = (y - first) * pitch
        for chunk in range(0, size, LANES):
            x = max(min(chunk, size - LANES), 0)  # overlaps the previous chunk: stays in the row
            p = start + x
            r = encode(values, p, row, scale[0], shift[0], half, out)
            g = encode(values, p + plane, row, scale[1], shift[1], half, out)
            b = encode(values, p + 2 * plane, row, scale[2], shift[2], half, out)
            if channels_last:
                if size >= LANES:
                    store_interleaved(out, at + 3 * (y * size + x), r, g, b)
                else:
                    store_interleaved(line, 0, r, g, b)
                    copy(line, 0, 3 * size, out, at + 3 * y * size)
            else:
                to, step = at + y * size + x, size * size
                if size >= LANES:
                    store(out, to, r)
                    store(out, to + step, g)
                    store(out, to + 2 * step, b)
                else:
                    store(line, 0, r)
                    store(line, LANES, g)
                    store(line, 2 * LANES, b)
                    for channel in range(3):
                        copy(line, channel * LANES, size, out, to + channel * step)


@jit_ieee
def copy(line, start, count, out, to):
    """Copy `count` elements, fewer than a vector."""
    for i in range(count):
        out[to + i] = line[start + i]


@jit_lanes
def encode(values, start, row, gain, bias, half, out):
    """The 32 values from `start`, solarised if the row says so, as elements of `out`."""
    value = load(values, start, splat(np.int16(0)))
    if row.solarise != 0:
        opposite = subtract(splat(UNIT_16), value)
        value = where_above(value, splat(SOLARISE_ABOVE), opposite, value)
    return convert(value, gain, bias, half, out)


def convert(value, gain, bias, half, out):  # type: ignore[no-untyped-def]
    """gain * value + bias in out's dtype; uint16 is bfloat16, or float16 with `half`."""
    raise TypeError("only inside compiled code")


@overload(convert, jit_options={"forceinline": True})
def _convert(value, gain, bias, half, out):  # type: ignore[no-untyped-def]
    def to_32_bits(value, gain, bias, half, out):
        return multiply_add(splat(bias), to_float32(value), splat(gain))

    def to_16_bits(value, gain, bias, half, out):
        if half:
            return to_half(multiply_add(splat(bias), to_float32(value), splat(gain)))
        return to_bfloat16(value, gain, bias)

    def to_8_bits(value, gain, bias, half, out):  # levels, which are not normalised
        return to_bytes(shift_right(add(value, splat(HALF_LEVEL)), LEVEL_BITS))

    return {types.float32: to_32_bits, types.uint16: to_16_bits, types.uint8: to_8_bits}[out.dtype]
