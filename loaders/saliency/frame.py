"""Artificial frames: straight lines along a side of the picture, cut off with what is outside."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

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
    """How many rows lie outside the innermost line at the top, and at the bottom."""
    wanted = density * image.shape[1]
    steps = np.zeros((3, image.shape[1]), np.int32)
    top = bottom = 0
    for y in range(2, width + 1):
        if edge_pixels(image, y, False, steps) > wanted:
            top = y
        if edge_pixels(image, y, True, steps) > wanted:
            bottom = y
    return top, bottom


@jit
def edge_pixels(image, y, upwards, steps):
    """How many pixels have an edge between them and row y - 1, counted from the top or the bottom:
    the step, smoothed along the row, is high, no lower than the one before, higher than the next.
    """
    for i in range(3):
        before, after = y + i - 2, y + i - 1
        if upwards:
            before, after = len(image) - 1 - before, len(image) - 1 - after
        above, below, row = image[before], image[after], steps[i]
        for x in range(len(row)):
            row[x] = grey(below, x) - grey(above, x)
    count = 0
    for x in range(1, image.shape[1] - 1):
        outer, here, inner = smooth(steps[0], x), smooth(steps[1], x), smooth(steps[2], x)
        count += here >= 16 * STEP and here >= outer and here > inner
    return count


@jit
def grey(row, x):
    """Four times the luma, nearly."""
    return np.int32(row[x, 0]) + 2 * np.int32(row[x, 1]) + np.int32(row[x, 2])


@jit
def smooth(row, x):
    return abs(row[x - 1] + 2 * row[x] + row[x + 1])
