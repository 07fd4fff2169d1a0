"""Pictures and maps of another size: linear, and antialiased where they shrink."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, channels] of a uint8 [h, w, channels]; the same array if it fits."""
    if image.shape[:2] == (height, width):
        return image
    return resample(np.ascontiguousarray(image), height, width)


@jit
def resample(image, height, width):
    """A triangle filter, as wide as the shrink factor but no less than a pixel, down and across.

    A row at a time, so that no picture of floats is needed.
    """
    rows, columns, channels = image.shape
    begin_y, weight_y = filters(rows, height)
    begin_x, weight_x = filters(columns, width)
    out = np.empty((height, width, channels), np.uint8)
    flat = image.reshape(rows, columns * channels)
    line = np.empty(columns * channels, np.float32)
    for y in range(height):
        line[:] = 0
        for i in range(weight_y.shape[1]):
            if weight_y[y, i] > 0:
                mix(line, flat[begin_y[y] + i], weight_y[y, i])
        for x in range(width):
            for c in range(channels):
                total = np.float32(0.5)
                for i in range(weight_x.shape[1]):
                    if weight_x[x, i] > 0:
                        total += weight_x[x, i] * line[(begin_x[x] + i) * channels + c]
                out[y, x, c] = np.uint8(total)
    return out


@jit
def mix(line, row, weight):
    for x in range(len(line)):
        line[x] += weight * np.float32(row[x])


@jit
def filters(before, after):
    """Where each output pixel begins to look, and its weights; those outside the picture are 0."""
    scale = before / after
    reach = max(scale, 1.0)
    taps = int(np.ceil(2 * reach)) + 1
    begins = np.empty(after, np.int64)
    weights = np.zeros((after, taps), np.float32)
    for x in range(after):
        middle = (x + 0.5) * scale
        begins[x] = max(int(np.floor(middle - reach)), 0)
        total = 0.0
        for i in range(taps):
            away = abs(begins[x] + i + 0.5 - middle) / reach
            if away < 1 and begins[x] + i < before:
                weights[x, i] = 1 - away
                total += 1 - away
        weights[x] /= total
    return begins, weights
