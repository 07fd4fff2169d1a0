"""From superpixels to pixels, and how many pixels have which grey level."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


@jit
def paint(codes, labels, plane, top, left):
    """Give each pixel of a window of `plane` (uint8 [h, w]) its superpixel's code."""
    height, width = labels.shape
    for y in range(height):
        own, row = labels[y], plane[top + y, left : left + width]
        for x in range(width):
            row[x] = codes[own[x]]


@jit
def levels(plane):
    """int64 [256]: pixels of each grey level of a uint8 [h, w]."""
    counts = np.zeros((2, 256), np.int64)  # two, so that equal neighbours need not wait
    for y in range(len(plane)):
        row = plane[y]
        for x in range(len(row)):
            counts[x & 1, row[x]] += 1
    return counts[0] + counts[1]
