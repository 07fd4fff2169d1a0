"""Bytes of pictures as float16 matrices on the GPU, loaded in words wherever they start."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pixels(corner, pitch, y, length_y, length_x, WIDE: tl.constexpr):
    """The channels of WIDE pixels of rows `y`, each plus 1024, which costs nothing in float16.

    Four pixels are three words, wherever they start: four aligned words, shifted. Words without a
    pixel of ours are not read; what is beyond `length_x` is some number, to be weighted with zero.
    """
    rows = corner + tl.minimum(y, length_y - 1) * pitch
    off = (rows & 3).to(tl.int32)
    words = (rows - off).to(tl.pointer_type(tl.uint32))
    last = ((off + 3 * length_x - 1) >> 2)[:, None]
    at = (3 * tl.arange(0, WIDE // 4))[None, :]
    pointers, shift = words[:, None] + at, (8 * off)[:, None]
    first = tl.load(pointers, at <= last).to(tl.uint64)
    second = tl.load(pointers + 1, at + 1 <= last).to(tl.uint64)
    third = tl.load(pointers + 2, at + 2 <= last).to(tl.uint64)
    fourth = tl.load(pointers + 3, at + 3 <= last).to(tl.uint64)
    first = ((second << 32 | first) >> shift).to(tl.uint32)
    second = ((third << 32 | second) >> shift).to(tl.uint32)
    third = ((fourth << 32 | third) >> shift).to(tl.uint32)
    even, odd = _halves(first)
    even_2, odd_2 = _halves(second)
    even_3, odd_3 = _halves(third)
    red = _four(even, odd >> 16, even_2 >> 16, odd_3, WIDE)
    green = _four(odd, even_2, odd_2 >> 16, even_3 >> 16, WIDE)
    blue = _four(even >> 16, odd_2, even_3, odd_3 >> 16, WIDE)
    return red, green, blue


@triton.jit
def holes(corner, pitch, y, length_y, length_x, WIDE: tl.constexpr):
    """255 - byte for WIDE bytes of rows `y` of a plane, in the same way; four pixels are a word."""
    rows = corner + tl.minimum(y, length_y - 1) * pitch
    off = (rows & 3).to(tl.int32)
    words = (rows - off).to(tl.pointer_type(tl.uint32))
    last = ((off + length_x - 1) >> 2)[:, None]
    at = tl.arange(0, WIDE // 4)[None, :]
    pointers = words[:, None] + at
    first = tl.load(pointers, at <= last).to(tl.uint64)
    second = tl.load(pointers + 1, at + 1 <= last).to(tl.uint64)
    four = ((second << 32 | first) >> (8 * off)[:, None]).to(tl.uint32)
    even, odd = _halves(four ^ 0xFFFFFFFF)
    return _four(even, odd, even >> 16, odd >> 16, WIDE)


@triton.jit
def _halves(word):
    """Bytes 0 and 2, and bytes 1 and 3, as float16 numbers of 1024 and on: two in each word."""
    return word & 0x00FF00FF | 0x64006400, (word >> 8) & 0x00FF00FF | 0x64006400


@triton.jit
def _four(a, b, c, d, WIDE: tl.constexpr):
    """The lower halves of a, b, c and d, side by side."""
    a, b, c, d = a.to(tl.uint16), b.to(tl.uint16), c.to(tl.uint16), d.to(tl.uint16)
    four = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], WIDE])
    return four.to(tl.float16, bitcast=True)
