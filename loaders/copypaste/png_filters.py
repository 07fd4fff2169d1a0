"""Undo PNG row filters in compiled code: each filter predicts a byte from its neighbours."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


@jit
def undo_filters(rows):
    """Pixels, uint8 [height, width], from rows [height, 1 + width] that start with a filter type:
    0 none, 1 sub (left), 2 up, 3 average of both, 4 Paeth."""
    height, width = rows.shape[0], rows.shape[1] - 1
    plane = np.empty((height, width), np.uint8)
    above = np.zeros(width, np.uint8)
    for y in range(height):
        kind, row, out = rows[y, 0], rows[y, 1:], plane[y]
        left = corner = 0
        for x in range(width):
            up = int(above[x])
            if kind == 0:
                prediction = 0
            elif kind == 1:
                prediction = left
            elif kind == 2:
                prediction = up
            elif kind == 3:
                prediction = (left + up) // 2
            else:
                prediction = paeth(left, up, corner)
            left, corner = (int(row[x]) + prediction) & 255, up
            out[x] = left
        above = out
    return plane


@jit
def paeth(left, up, corner):
    """Paeth's predictor: the neighbour closest to left + up - corner."""
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
