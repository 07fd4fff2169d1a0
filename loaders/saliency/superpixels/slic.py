"""SLIC superpixels (Achanta et al. 2012): k-means on colour and position with local windows.

Each iteration goes through the image row by row: pixels of a row are assigned to centres and added
to the next centres' sums while the row is in the L1 cache.
"""

from __future__ import annotations

import math

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.superpixels.connect import enforce_connectivity
from patchmill.loaders.saliency.superpixels.lab import BLOCK

FAR = np.float32(1e30)  # not inf, which fastmath may assume away


def superpixels(
    lab: np.ndarray, width: int, count: int, compactness: float, iterations: int
) -> tuple[np.ndarray, int]:
    """About `count` connected superpixels of an image in CIELAB, as returned by `lab.rgb_to_lab`.

    Returns int32 [height, width] labels, numbered from 0 in the order of first pixels, and their
    number.
    """
    pitch = math.sqrt(len(lab) * width / count)
    down, across = max(1, round(len(lab) / pitch)), max(1, round(width / pitch))
    labels = _cluster(lab, width, down, across, pitch, compactness, iterations)
    min_size = len(lab) * width / (down * across) / 4
    return enforce_connectivity(labels, width, min_size)


@jit
def _cluster(lab, width, down, across, pitch, compactness, iterations):
    """int32 [height, padded width]: the centre that each pixel is assigned to."""
    height, padded = len(lab), lab.shape[2]
    centres = initial_centres(lab, width, down, across)
    sums = np.empty((len(centres), 6), np.float32)
    prefix = prefix_sums(lab, width)
    labels = np.zeros((height, padded), np.int32)
    nearest = np.empty(padded, np.float32)
    starts = np.empty(width + 1, np.int32)
    candidates = np.empty(len(centres), np.int32)
    low, high = np.empty(down, np.float32), np.empty(down, np.float32)
    reach = np.float32(pitch)
    weight = np.float32((compactness / pitch) ** 2)
    for _ in range(iterations):
        for r in range(down):
            low[r] = centres[r * across : (r + 1) * across, 3].min() - reach
            high[r] = centres[r * across : (r + 1) * across, 3].max() + reach
        sums[:] = 0
        for y in range(height):
            near = 0
            for r in range(down):
                if low[r] <= y <= high[r]:
                    for k in range(r * across, (r + 1) * across):
                        if abs(np.float32(y) - centres[k, 3]) <= reach:
                            candidates[near] = k
                            near += 1
            assign_row(
                lab[y], y, centres, candidates[:near], reach, weight, width, nearest, labels[y]
            )
            add_row(prefix[y], y, width, labels[y], starts, sums)
        for k in range(len(centres)):
            if sums[k, 5] > 0:
                for i in range(5):
                    centres[k, i] = sums[k, i] / sums[k, 5]
    return labels


@jit
def assign_row(row, y, centres, candidates, reach, weight, width, nearest, labels):
    """Assign each pixel of a row to the nearest candidate centre whose window it lies in."""
    light, a, b = row[0], row[1], row[2]
    nearest[:] = FAR
    for n in range(len(candidates)):
        k = candidates[n]
        centre_light, centre_a, centre_b = centres[k, 0], centres[k, 1], centres[k, 2]
        away, here = np.float32(y) - centres[k, 3], centres[k, 4]
        base = away * away * weight
        first = max(math.ceil(here - reach), 0) // BLOCK
        last = min(int(here + reach), width - 1) // BLOCK
        for block in range(first, last + 1):
            at = np.uint64(block) * np.uint64(BLOCK)
            left = np.float32(block * BLOCK) - here
            for i in range(BLOCK):
                x = at + np.uint64(i)
                side = left + np.float32(np.int32(i))
                d_light, d_a, d_b = light[x] - centre_light, a[x] - centre_a, b[x] - centre_b
                d = base + side * side * weight + d_light * d_light + d_a * d_a + d_b * d_b
                d = d if abs(side) <= reach else FAR
                closer = d < nearest[x]
                nearest[x] = d if closer else nearest[x]
                labels[x] = k if closer else labels[x]


@jit
def prefix_sums(lab, width):
    """float32 [height, 3, width + 1]: prefix sums of L, a and b along each row."""
    sums = np.empty((len(lab), 3, width + 1), np.float32)
    for y in range(len(lab)):
        light = a = b = np.float32(0)
        for x in range(width):
            sums[y, 0, x], sums[y, 1, x], sums[y, 2, x] = light, a, b
            light += lab[y, 0, x]
            a += lab[y, 1, x]
            b += lab[y, 2, x]
        sums[y, 0, width], sums[y, 1, width], sums[y, 2, width] = light, a, b
    return sums


@jit
def add_row(prefix, y, width, labels, starts, sums):
    """Add a row's pixels to their centres' sums of L, a, b, y, x and 1, run by run.

    `prefix` holds the row's prefix sums.
    """
    count, previous = 0, np.int32(-1)
    for x in range(width):
        label = labels[x]
        starts[count] = x
        count += label != previous
        previous = label
    starts[count] = width
    for n in range(count):
        start, stop = starts[n], starts[n + 1]
        label, run = labels[start], np.float32(stop - start)
        for i in range(3):
            sums[label, i] += prefix[i, stop] - prefix[i, start]
        sums[label, 3] += run * np.float32(y)
        sums[label, 4] += run * np.float32(0.5) * np.float32(start + stop - 1)
        sums[label, 5] += run


@jit
def initial_centres(lab, width, down, across):
    """float32 [down * across, 5]: L, a, b, y, x on a grid, moved to the flattest of 3x3 pixels."""
    height = len(lab)
    centres = np.empty((down * across, 5), np.float32)
    for r in range(down):
        for c in range(across):
            y, x = int((r + 0.5) * height / down), int((c + 0.5) * width / across)
            best_y, best_x, flattest = y, x, FAR
            for near_y in range(max(y - 1, 1), min(y + 2, height - 1)):
                for near_x in range(max(x - 1, 1), min(x + 2, width - 1)):
                    steep = gradient(lab, near_y, near_x)
                    if steep < flattest:
                        best_y, best_x, flattest = near_y, near_x, steep
            centre = centres[r * across + c]
            for i in range(3):
                centre[i] = lab[best_y, i, best_x]
            centre[3], centre[4] = best_y, best_x
    return centres


@jit
def gradient(lab, y, x):
    """Squared horizontal and vertical colour differences across a pixel."""
    total = np.float32(0)
    for i in range(3):
        total += (lab[y, i, x + 1] - lab[y, i, x - 1]) ** 2
        total += (lab[y + 1, i, x] - lab[y - 1, i, x]) ** 2
    return total
