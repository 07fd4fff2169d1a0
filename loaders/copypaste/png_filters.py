"""The rows of a PNG as they were before its filters, each of which predicts from neighbours."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


@jit
def undo_filters(rows):
    """uint8 [height, width] of [height, 1 + width], of which the first column names the filters:
    0 none, 1 left, 2 above, 3 their mean, 4 Paeth's choice of left, above and above left."""
    height, width = rows.shape[0], rows.shape[1] - 1
    plane = np.empty((height, width), np.uint8)
    above = np.zeros(width, np.uint8)
    for y in range(height):
        kind, row, out = rows[y, 0], rows[y, 1:], plane[y]
        left = corner = 0
        for x in range(width):
            up = int(above[x])
            if kind == 0:
                guess = 0
            elif kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            else:
                guess = paeth(left, up, corner)
            left, corner = (int(row[x]) + guess) & 255, up
            out[x] = left
        above = out
    return plane


@jit
def paeth(left, up, corner):
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
