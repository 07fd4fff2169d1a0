"""Artificial frames around an image: straight lines along its sides, found and cropped away."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

MIN_STEP = 8  # grey levels: the least height of an edge
_MAX_SHARE = 6  # a frame takes at most 1/6 of the image from each side


def inside(image: np.ndarray, width: int, density: float) -> tuple[slice, slice]:
    """The rows and columns inside the frame; all of them if there is none.

    The frame's inner border is the innermost row or column, at most `width` from its side, of
    which more than `density` are edge pixels.
    """
    rows, columns = image.shape[:2]
    transposed = image.transpose(1, 0, 2)
    top, bottom = frame_rows(image, min(width, rows // _MAX_SHARE), density)
    left, right = frame_rows(transposed, min(width, columns // _MAX_SHARE), density)
    return slice(top, rows - bottom), slice(left, columns - right)


@jit
def frame_rows(image, width, density):
    """Number of frame rows at the top and at the bottom."""
    needed = density * image.shape[1]
    steps = np.zeros((3, image.shape[1]), np.int32)
    top = bottom = 0
    for y in range(2, width + 1):
        if edge_pixels(image, y, False, steps) > needed:
            top = y
        if edge_pixels(image, y, True, steps) > needed:
            bottom = y
    return top, bottom


@jit
def edge_pixels(image, y, upwards, steps):
    """Number of edge pixels between rows y - 1 and y, counted from the top or from the bottom.

    A pixel is on an edge where the step across, smoothed along the row, is high enough, at least
    as high as the step outside it and higher than the step inside it (non-maximum suppression).
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
        count += here >= 16 * MIN_STEP and here >= outer and here > inner
    return count


@jit
def grey(row, x):
    """About four times the luma."""
    return np.int32(row[x, 0]) + 2 * np.int32(row[x, 1]) + np.int32(row[x, 2])


@jit
def smooth(row, x):
    """Magnitude after a 1-2-1 binomial filter."""
    return abs(row[x - 1] + 2 * row[x] + row[x + 1])
