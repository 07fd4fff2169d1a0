"""Unaligned uint8 pixels loaded as 32-bit words and unpacked to float16 matrices.

A byte alone is the bit pattern of a subnormal float16, byte * BYTE_UNIT; ORed with BIAS, it is
1024 + byte. Both are exact, and tensor cores multiply both.
"""

from __future__ import annotations

import triton
import triton.language as tl

BYTE_UNIT = tl.constexpr(2.0**-24)
BIAS = tl.constexpr(0x64006400)


@triton.jit
def load_rgb(
    corner,  # [length_y, length_x, 3] uint8, row pitch `pitch` bytes
    pitch, y, length_y, length_x,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Red, green, blue of WIDTH pixels of rows `y`, each [rows, WIDTH] float16 plus 1024.

    Rows from `length_y` on and columns from `length_x` on hold arbitrary values and need weight 0.
    """
    pointers, shift, spare = word_pointers(corner, pitch, y, length_x, WIDTH)
    first, second, third, fourth = load_words(pointers, spare, y < length_y)
    return unpack_rgb(first, second, third, fourth, shift, BIAS, WIDTH)


@triton.jit
def word_pointers(
    corner,  # [rows, length_x, 3] uint8, row pitch `pitch` bytes
    pitch, y, length_x,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Pointers to the first word of each group of four of WIDTH pixels, [rows, WIDTH / 4].

    Also the pixels' bit offset in these words, [rows, 1], and how many more words of the row hold
    some of its pixels. The offset is the same four columns on and four rows on.
    """
    rows = corner + y * pitch
    misalignment = (rows & 3).to(tl.int32)[:, None]
    words = (rows[:, None] - misalignment).to(tl.pointer_type(tl.uint32))
    word = (3 * tl.arange(0, WIDTH // 4))[None, :]
    spare = ((misalignment + 3 * length_x - 1) >> 2) - word
    # Lanes should follow the rows: older compilers need a hint that words are contiguous. It can do
    # no more: the alignment of the addresses is unknown, so words are loaded one by one.
    return tl.max_contiguous(words + word, [1, 2]), 8 * misalignment, spare


@triton.jit
def load_words(pointers, spare, inside):
    """Load the words of four pixels, at any alignment; words without any pixel are not read."""
    inside = inside[:, None]
    return (
        tl.load(pointers, (spare >= 0) & inside),
        tl.load(pointers + 1, (spare >= 1) & inside),
        tl.load(pointers + 2, (spare >= 2) & inside),
        tl.load(pointers + 3, (spare >= 3) & inside),
    )


@triton.jit
def unpack_rgb(first, second, third, fourth, shift, bias: tl.constexpr, WIDTH: tl.constexpr):
    """Red, green, blue, each [rows, WIDTH] float16, of words from `load_words`; bias: BIAS or 0."""
    # Four words, funnel-shifted to the three that hold four pixels.
    first, second = first.to(tl.uint64), second.to(tl.uint64)
    third, fourth = third.to(tl.uint64), fourth.to(tl.uint64)
    first = ((second << 32 | first) >> shift).to(tl.uint32)
    second = ((third << 32 | second) >> shift).to(tl.uint32)
    third = ((fourth << 32 | third) >> shift).to(tl.uint32)
    # Bytes r g b r | g b r g | b r g b to three channels of four pixels.
    even, odd = _unpack(first, bias)
    even_2, odd_2 = _unpack(second, bias)
    even_3, odd_3 = _unpack(third, bias)
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
    even, odd = _unpack(four ^ 0xFFFFFFFF, BIAS)
    return _interleave(even, odd, even >> 16, odd >> 16, WIDTH)


@triton.jit
def _unpack(word, bias: tl.constexpr):
    """Bytes 0 and 2, and bytes 1 and 3, as pairs of float16."""
    return word & 0x00FF00FF | bias, (word >> 8) & 0x00FF00FF | bias


@triton.jit
def _interleave(a, b, c, d, WIDTH: tl.constexpr):
    """The low halves of a, b, c, d as neighbouring columns: [rows, WIDTH] float16."""
    a, b, c, d = a.to(tl.uint16), b.to(tl.uint16), c.to(tl.uint16), d.to(tl.uint16)
    four = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], WIDTH])
    return four.to(tl.float16, bitcast=True)
