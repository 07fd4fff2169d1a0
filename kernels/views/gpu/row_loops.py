"""Compiled loops over a batch's decision rows, for its host-side tables: without the interpreter.

They take rows [N, V] that are contiguous.
"""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit_ieee


@jit_ieee
def first_outside(rows: np.ndarray, shapes: np.ndarray) -> int:
    """Place (image * V + view) of the first box that is not inside of its image; -1 for none.

    `shapes` [N, 2] int64 are heights and widths.
    """
    for image in range(rows.shape[0]):
        height, width = shapes[image, 0], shapes[image, 1]
        for view in range(rows.shape[1]):
            row = rows[image, view]
            y, x = np.int64(row.box_y), np.int64(row.box_x)
            h, w = np.int64(row.box_h), np.int64(row.box_w)
            if y < 0 or x < 0 or h <= 0 or w <= 0 or y + h > height or x + w > width:
                return image * rows.shape[1] + view
    return -1


@jit_ieee
def lay_out_filters(
    rows: np.ndarray,
    tiles: np.ndarray,
    sides: np.ndarray,
    reaches: np.ndarray,
    step: int,
    unit: int,
    table: np.ndarray,
) -> int:
    """Fill the table [N, V, 4] of `gpu.filters`; return the units of all records.

    Views have `sides` tiles of `tiles` pixels a side, and filters that reach so far.
    """
    total = 0
    for axis in range(2):
        for image in range(rows.shape[0]):
            for view in range(rows.shape[1]):
                row, tile = rows[image, view], tiles[view]
                box = np.int64(row.box_h if axis == 0 else row.box_w)
                scale = box / np.int64(row.full_h if axis == 0 else row.full_w)
                longest = np.int64((tile - 1) * scale + reaches[view] * max(scale, 1.0) + 3)
                steps = (min(longest, box) + step - 1) // step
                size = 1 + tile * (2 + step * steps) // unit
                table[image, view, 2 * axis], table[image, view, 2 * axis + 1] = total, size
                total += sides[view] * size
    return total
