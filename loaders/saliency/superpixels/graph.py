"""Superpixels as a graph: what colour each has, where it lies, what it touches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.superpixels.lab import LINEAR, lab_pixel, padded
from patchmill.loaders.saliency.superpixels.slic import FAR


class Graph(NamedTuple):
    """n superpixels. Tables between them are float32 or bool [n, n] and symmetric."""

    colours: np.ndarray  # float32 [n, 3]: CIELAB of the mean RGB
    places: np.ndarray  # float32 [n, 2]: mean y and x, 0 to 1
    colour: np.ndarray  # distances
    place: np.ndarray
    near: np.ndarray  # bool: 4-connected neighbours, and each with itself


class Scales(NamedTuple):
    """What GS and RBD take for a small colour distance in this picture."""

    clip: float  # differences up to this are none
    geodesic: float  # sigma of distances along paths
    neighbour: float  # sigma of differences between neighbours


def build_graph(image: np.ndarray, labels: np.ndarray, count: int) -> Graph:
    colours, places = regions(image, labels, count)
    near = adjacency(labels, count)
    return Graph(colours, places, distances(colours), distances(places), near)


def colour_scales(graph: Graph) -> Scales:
    """From how much neighbours differ in this picture."""
    near, top = mean_least(graph.colour, graph.near), mean_largest(graph.colour, graph.near)
    hops = mean_least(graph.colour, two_hop_adjacency(graph.near))
    geodesic = max(5.0, min(10.0, 3 * near, top / 10))
    return Scales(hops, geodesic, max(min(3 * near, 0.2 * top, 20.0), 1e-3))


@jit
def regions(image, labels, count):
    """CIELAB of the mean RGB, and mean place, of each label."""
    height, width = labels.shape
    sums = np.zeros((count, 6), np.int64)
    for y in range(height):
        row, pixels = labels[y], image[y]
        start = 0
        while start < width:
            label, x = row[start], start
            red = green = blue = 0
            while x < width and row[x] == label:
                red += pixels[x, 0]
                green += pixels[x, 1]
                blue += pixels[x, 2]
                x += 1
            run = x - start
            sums[label, 0] += red
            sums[label, 1] += green
            sums[label, 2] += blue
            sums[label, 3] += run * (2 * y + 1)
            sums[label, 4] += run * (start + x)
            sums[label, 5] += run
            start = x
    colours, places = np.empty((count, 3), np.float32), np.empty((count, 2), np.float32)
    for i in range(count):
        area = sums[i, 5]
        colours[i, 0], colours[i, 1], colours[i, 2] = lab_pixel(
            linear(sums[i, 0] / area), linear(sums[i, 1] / area), linear(sums[i, 2] / area)
        )
        places[i, 0] = sums[i, 3] / (2 * area * height)
        places[i, 1] = sums[i, 4] / (2 * area * width)
    return colours, places


@jit
def linear(code):
    """Linear light of a mean of codes, between two entries of the table."""
    below = min(int(code), 254)
    rest = np.float32(code - below)
    return LINEAR[below] + rest * (LINEAR[below + 1] - LINEAR[below])


@jit
def adjacency(labels, count):
    """Which labels have pixels side by side or one above the other; each with itself."""
    height, width = labels.shape
    near = np.zeros((count, count), np.bool_)
    for i in range(count):
        near[i, i] = True
    for y in range(height):
        row, below = labels[y], labels[min(y + 1, height - 1)]
        for x in range(width):
            near[row[x], below[x]] = True
            near[row[x], row[min(x + 1, width - 1)]] = True
    return symmetric(near)


@jit
def symmetric(near):
    for i in range(len(near)):
        for j in range(i):
            near[i, j] = near[j, i] = near[i, j] or near[j, i]
    return near


@jit
def two_hop_adjacency(near):
    reached = np.zeros_like(near)
    for i in range(len(near)):
        for j in range(len(near)):
            if near[i, j]:
                for k in range(len(near)):
                    reached[i, k] |= near[j, k]
    return reached


@jit
def touches_border(labels, count, band):
    """bool [count]: has a pixel in the outer band."""
    height, width = labels.shape
    touches = np.zeros(count, np.bool_)
    for y in range(height):
        inside = band <= y < height - band
        for x in range(min(band, width) if inside else width):
            touches[labels[y, x]] = True
            touches[labels[y, width - 1 - x]] = True
    return touches


@jit
def distances(points):
    """Euclidean, between all rows of `points`."""
    count, size = points.shape
    found = np.zeros((count, count), np.float32)
    for k in range(size):
        column = points[:, k].copy()
        for i in range(count):
            row, own = found[i], column[i]
            for j in range(count):
                row[j] += (column[j] - own) * (column[j] - own)
    for i in range(count):
        row = found[i]
        for j in range(count):
            row[j] = np.sqrt(row[j])
    return found


@jit
def mean_least(colour, near):
    """The mean over superpixels of the least colour distance to a neighbour; 0 without any."""
    total, counted = 0.0, 0
    for i in range(len(near)):
        least = FAR
        for j in range(len(near)):
            if near[i, j] and i != j:
                least = min(least, colour[i, j])
        if least < FAR:
            total += float(least)
            counted += 1
    return total / max(counted, 1)


@jit
def mean_largest(colour, near):
    """The mean of the largest 1 % of colour distances between neighbours; 0 without any."""
    found, count = np.empty(len(near) ** 2 // 2 + 1, np.float32), 0
    for i in range(len(near)):
        for j in range(i):
            if near[i, j]:
                found[count] = colour[i, j]
                count += 1
    top = max(1, round(count * 0.01))
    return float(np.sort(found[:count])[-top:].mean()) if count else 0.0


@jit
def edge_costs(colour, near, boundary, clip):
    """float32 [n, padded n] costs of single steps: to neighbours, and from boundary to boundary.

    The padding keeps rows whole for vector instructions; it is FAR.
    """
    count = len(near)
    steps = np.full((count, padded(count)), FAR, np.float32)
    small = np.float32(clip)
    for i in range(count):
        for j in range(count):
            if near[i, j] or (boundary[i] and boundary[j]):
                steps[i, j] = max(colour[i, j] - small, np.float32(0))
    return steps
