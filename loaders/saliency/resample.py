"""Antialiased bilinear resizing of uint8 images and maps."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [h, w, channels]; returns the same array if the size already fits."""
    if image.shape[:2] == (height, width):
        return image
    return resample(np.ascontiguousarray(image), height, width)


@jit
def resample(image, height, width):
    """Separable triangle filter, scaled by the shrink factor but at least one pixel wide.

    Works row by row, so no float copy of the image is needed.
    """
    rows, columns, channels = image.shape
    begin_y, weight_y = triangle_weights(rows, height)
    begin_x, weight_x = triangle_weights(columns, width)
    out = np.empty((height, width, channels), np.uint8)
    flat = image.reshape(rows, columns * channels)
    line = np.empty(columns * channels, np.float32)
    for y in range(height):
        line[:] = 0
        for i in range(weight_y.shape[1]):
            if weight_y[y, i] > 0:
                accumulate(line, flat[begin_y[y] + i], weight_y[y, i])
        for x in range(width):
            for c in range(channels):
                total = np.float32(0.5)
                for i in range(weight_x.shape[1]):
                    if weight_x[x, i] > 0:
                        total += weight_x[x, i] * line[(begin_x[x] + i) * channels + c]
                out[y, x, c] = np.uint8(total)
    return out


@jit
def accumulate(line, row, weight):
    for x in range(len(line)):
        line[x] += weight * np.float32(row[x])


@jit
def triangle_weights(before, after):
    """First input pixel and tap weights of each output pixel; taps outside the input weigh 0."""
    scale = before / after
    support = max(scale, 1.0)
    taps = int(np.ceil(2 * support)) + 1
    begins = np.empty(after, np.int64)
    weights = np.zeros((after, taps), np.float32)
    for x in range(after):
        centre = (x + 0.5) * scale
        begins[x] = max(int(np.floor(centre - support)), 0)
        total = 0.0
        for i in range(taps):
            distance = abs(begins[x] + i + 0.5 - centre) / support
            if distance < 1 and begins[x] + i < before:
                weights[x, i] = 1 - distance
                total += 1 - distance
        weights[x] /= total
    return begins, weights
