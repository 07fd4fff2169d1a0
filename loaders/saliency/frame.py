"""Artificial frames: straight lines along a side of the picture, cut off with what is outside."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.jit import jit

STEP = 8  # grey levels that an edge is at least high
_MOST = 6  # a frame takes no more than one part in so many from each side


def inside(image: np.ndarray, width: int, density: float) -> tuple[slice, slice]:
    """Rows and columns within the frame; all of them where there is none.

    A frame's inner line is the innermost row or column, no farther than `width` from its side, of
    which edge pixels cover more than `density`.
    """
    rows, columns = image.shape[:2]
    turned = image.transpose(1, 0, 2)
    top, bottom = line(image, min(width, rows // _MOST), density)
    left, right = line(turned, min(width, columns // _MOST), density)
    return slice(top, rows - bottom), slice(left, columns - right)


@jit
def line(image, width, density):
    """How many rows lie outside a line at the top, and how many at the bottom."""
    rows, columns = image.shape[:2]
    wanted = density * columns
    across = np.zeros((3, columns), np.int32)
    top = bottom = 0
    for y in range(2, width):
        if edge_pixels(image, y, across) > wanted:
            top = y + 1
        if edge_pixels(image, rows - 1 - y, across) > wanted:
            bottom = y + 1
    return top, bottom


@jit
def edge_pixels(image, y, steps):
    """How many pixels of row y are on an edge that runs along it: their vertical step (Sobel's) is
    high, and no lower than above and higher than below."""
    columns = image.shape[1]
    for i in range(3):
        above, below, row = image[y + i - 2], image[y + i], steps[i]
        for x in range(columns):
            row[x] = grey(below, x) - grey(above, x)
    count = 0
    for x in range(1, columns - 1):
        upper, here, lower = smooth(steps[0], x), smooth(steps[1], x), smooth(steps[2], x)
        count += here >= 4 * STEP * 4 and here >= upper and here > lower
    return count


@jit
def grey(row, x):
    """Four times the luma, nearly."""
    return np.int32(row[x, 0]) + 2 * np.int32(row[x, 1]) + np.int32(row[x, 2])


@jit
def smooth(row, x):
    return abs(row[x - 1] + 2 * row[x] + row[x + 1])
