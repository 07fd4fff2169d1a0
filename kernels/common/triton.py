"""Triton functions shared by the GPU kernels of several folders."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(
    matrix,  # [count, D], contiguous, any dtype
    first_row, count, first_column,
    D: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A ROWS x COLUMNS tile from (first_row, first_column); zeros outside the matrix."""
    row, column = tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    # Masks: the last tile of rows, and of columns unless COLUMNS divides D.
    mask = (first_row + row < count)[:, None]
    if D % COLUMNS:
        mask = mask & (column < D)[None, :]
    # Only the tile's start may exceed 32 bits.
    start = matrix + tl.cast(first_row, tl.int64) * D
    return tl.load(start + row[:, None] * D + column[None, :], mask=mask, other=0.0)
