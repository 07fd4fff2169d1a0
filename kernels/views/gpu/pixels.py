"""Unaligned uint8 pixels loaded as 32-bit words and unpacked to float16 matrices."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rgb(
    corner,  # [length_y, length_x, 3] uint8, row pitch `pitch` bytes
    pitch, y, length_y, length_x,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Red, green, blue of WIDTH pixels of rows `y`, each [rows, WIDTH] float16 plus 1024.

    The bias of 1024 comes free with the unpacking. Four pixels are three words at any alignment:
    four aligned words, funnel-shifted. Words without any of the pixels are not read; columns from
    `length_x` on hold arbitrary values and need weight 0.
    """
    # Aligned word pointers, one row each; rows beyond the end repeat the last.
    rows = corner + tl.minimum(y, length_y - 1) * pitch
    misalignment = (rows & 3).to(tl.int32)
    words = (rows - misalignment).to(tl.pointer_type(tl.uint32))
    last = ((misalignment + 3 * length_x - 1) >> 2)[:, None]
    word = (3 * tl.arange(0, WIDTH // 4))[None, :]
    pointers, shift = words[:, None] + word, (8 * misalignment)[:, None]
    # Four words, funnel-shifted to the three that hold four pixels.
    first = tl.load(pointers, word <= last).to(tl.uint64)
    second = tl.load(pointers + 1, word + 1 <= last).to(tl.uint64)
    third = tl.load(pointers + 2, word + 2 <= last).to(tl.uint64)
    fourth = tl.load(pointers + 3, word + 3 <= last).to(tl.uint64)
    first = ((second << 32 | first) >> shift).to(tl.uint32)
    second = ((third << 32 | second) >> shift).to(tl.uint32)
    third = ((fourth << 32 | third) >> shift).to(tl.uint32)
    # Bytes r g b r | g b r g | b r g b to three channels of four pixels.
    even, odd = _unpack(first)
    even_2, odd_2 = _unpack(second)
    even_3, odd_3 = _unpack(third)
    red = _interleave(even, odd >> 16, even_2 >> 16, odd_3, WIDTH)
    green = _interleave(odd, even_2, odd_2 >> 16, even_3 >> 16, WIDTH)
    blue = _interleave(even >> 16, odd_2, even_3, odd_3 >> 16, WIDTH)
    return red, green, blue


@triton.jit
def load_inverted_mask(
    corner,  # [length_y, length_x] uint8, row pitch `pitch` bytes
    pitch, y, length_y, length_x,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """255 - byte, plus 1024, for WIDTH bytes of rows `y`: `load_rgb` for one channel."""
    # Aligned word pointers, one row each; rows beyond the end repeat the last.
    rows = corner + tl.minimum(y, length_y - 1) * pitch
    misalignment = (rows & 3).to(tl.int32)
    words = (rows - misalignment).to(tl.pointer_type(tl.uint32))
    last = ((misalignment + length_x - 1) >> 2)[:, None]
    word = tl.arange(0, WIDTH // 4)[None, :]
    pointers = words[:, None] + word
    # Two words, funnel-shifted to the one that holds four pixels, then inverted.
    first = tl.load(pointers, word <= last).to(tl.uint64)
    second = tl.load(pointers + 1, word + 1 <= last).to(tl.uint64)
    four = ((second << 32 | first) >> (8 * misalignment)[:, None]).to(tl.uint32)
    even, odd = _unpack(four ^ 0xFFFFFFFF)
    return _interleave(even, odd, even >> 16, odd >> 16, WIDTH)


@triton.jit
def _unpack(word):
    """Bytes 0 and 2, and bytes 1 and 3, as pairs of float16 with value 1024 + byte."""
    return word & 0x00FF00FF | 0x64006400, (word >> 8) & 0x00FF00FF | 0x64006400


@triton.jit
def _interleave(a, b, c, d, WIDTH: tl.constexpr):
    """The low halves of a, b, c, d as neighbouring columns: [rows, WIDTH] float16."""
    a, b, c, d = a.to(tl.uint16), b.to(tl.uint16), c.to(tl.uint16), d.to(tl.uint16)
    four = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], WIDTH])
    return four.to(tl.float16, bitcast=True)
