"""The region adjacency graph of superpixels: colours, positions, distances and neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.superpixels.lab import LINEAR, lab_pixel, padded_width
from patchmill.loaders.saliency.superpixels.slic import FAR


class Graph(NamedTuple):
    """n superpixels. Pairwise tables are [n, n] and symmetric."""

    colours: np.ndarray  # float32 [n, 3]: CIELAB of the mean RGB
    positions: np.ndarray  # float32 [n, 2]: mean y and x, 0 to 1
    colour_distances: np.ndarray  # float32 [n, n]
    position_distances: np.ndarray  # float32 [n, n]
    adjacency: np.ndarray  # bool [n, n]: 4-connected neighbours; True on the diagonal


class ColourScales(NamedTuple):
    """Colour distances that GS and RBD consider small, adapted to the image."""

    clip: float  # smaller differences between neighbours cost nothing along a path
    geodesic: float  # sigma of geodesic distances
    neighbour: float  # sigma of differences between neighbours


def build_graph(image: np.ndarray, labels: np.ndarray, count: int) -> Graph:
    colours, positions = region_means(image, labels, count)
    adjacency = find_adjacency(labels, count)
    distances = pairwise_distances(colours), pairwise_distances(positions)
    return Graph(colours, positions, *distances, adjacency)


def colour_scales(graph: Graph) -> ColourScales:
    """Derive the scales from the colour differences between neighbours."""
    colour, adjacency = graph.colour_distances, graph.adjacency
    near, top = mean_smallest(colour, adjacency), mean_largest(colour, adjacency)
    clip = mean_smallest(colour, two_hop_adjacency(adjacency))
    geodesic = max(5.0, min(10.0, 3 * near, top / 10))
    return ColourScales(clip, geodesic, max(min(3 * near, 0.2 * top, 20.0), 1e-3))


@jit
def region_means(image, labels, count):
    """CIELAB of the mean RGB, float32 [n, 3], and mean relative position, float32 [n, 2]."""
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
    colours, positions = np.empty((count, 3), np.float32), np.empty((count, 2), np.float32)
    for i in range(count):
        area = sums[i, 5]
        colours[i, 0], colours[i, 1], colours[i, 2] = lab_pixel(
            linear_light(sums[i, 0] / area),
            linear_light(sums[i, 1] / area),
            linear_light(sums[i, 2] / area),
        )
        positions[i, 0] = sums[i, 3] / (2 * area * height)
        positions[i, 1] = sums[i, 4] / (2 * area * width)
    return colours, positions


@jit
def linear_light(code):
    """Linear light of a fractional sRGB code, interpolated in the table."""
    below = min(int(code), 254)
    rest = np.float32(code - below)
    return LINEAR[below] + rest * (LINEAR[below + 1] - LINEAR[below])


@jit
def find_adjacency(labels, count):
    """bool [n, n]: labels with horizontally or vertically adjacent pixels; True on the diagonal."""
    height, width = labels.shape
    adjacency = np.zeros((count, count), np.bool_)
    for i in range(count):
        adjacency[i, i] = True
    for y in range(height):
        row, below = labels[y], labels[min(y + 1, height - 1)]
        for x in range(width):
            adjacency[row[x], below[x]] = True
            adjacency[row[x], row[min(x + 1, width - 1)]] = True
    return symmetric(adjacency)


@jit
def symmetric(adjacency):
    """Make a directed adjacency symmetric, in place."""
    for i in range(len(adjacency)):
        for j in range(i):
            adjacency[i, j] = adjacency[j, i] = adjacency[i, j] or adjacency[j, i]
    return adjacency


@jit
def two_hop_adjacency(adjacency):
    """Neighbours and their neighbours."""
    reached = np.zeros_like(adjacency)
    for i in range(len(adjacency)):
        for j in range(len(adjacency)):
            if adjacency[i, j]:
                for k in range(len(adjacency)):
                    reached[i, k] |= adjacency[j, k]
    return reached


@jit
def touches_border(labels, count, band):
    """bool [n]: labels with a pixel in the outer `band` pixels of the image."""
    height, width = labels.shape
    touches = np.zeros(count, np.bool_)
    for y in range(height):
        inside = band <= y < height - band
        for x in range(min(band, width) if inside else width):
            touches[labels[y, x]] = True
            touches[labels[y, width - 1 - x]] = True
    return touches


@jit
def pairwise_distances(points):
    """float32 [n, n] Euclidean distances between the rows of `points`."""
    count, size = points.shape
    distances = np.zeros((count, count), np.float32)
    for k in range(size):
        column = points[:, k].copy()
        for i in range(count):
            row, centre = distances[i], column[i]
            for j in range(count):
                row[j] += (column[j] - centre) * (column[j] - centre)
    for i in range(count):
        row = distances[i]
        for j in range(count):
            row[j] = np.sqrt(row[j])
    return distances


@jit
def mean_smallest(colour_distances, adjacency):
    """Mean over superpixels of the smallest colour distance to a neighbour; 0 without any."""
    total, counted = 0.0, 0
    for i in range(len(adjacency)):
        least = FAR
        for j in range(len(adjacency)):
            if adjacency[i, j] and i != j:
                least = min(least, colour_distances[i, j])
        if least < FAR:
            total += float(least)
            counted += 1
    return total / max(counted, 1)


@jit
def mean_largest(colour_distances, adjacency):
    """Mean of the largest 1 % of the colour distances between neighbours; 0 without any."""
    values, count = np.empty(len(adjacency) ** 2 // 2 + 1, np.float32), 0
    for i in range(len(adjacency)):
        for j in range(i):
            if adjacency[i, j]:
                values[count] = colour_distances[i, j]
                count += 1
    top = max(1, round(count * 0.01))
    return float(np.sort(values[:count])[-top:].mean()) if count else 0.0


@jit
def edge_costs(colour_distances, adjacency, boundary, clip):
    """float32 [n, padded n] costs of edges: between neighbours, and between boundary superpixels.

    FAR marks missing edges and the padding, which keeps rows a whole number of SIMD blocks long.
    """
    count = len(adjacency)
    costs = np.full((count, padded_width(count)), FAR, np.float32)
    small = np.float32(clip)
    for i in range(count):
        for j in range(count):
            if adjacency[i, j] or (boundary[i] and boundary[j]):
                costs[i, j] = max(colour_distances[i, j] - small, np.float32(0))
    return costs


@jit
def paint_superpixels(levels, labels, plane, top, left):
    """Set each pixel of a window of `plane`, uint8 [h, w], to its superpixel's grey level."""
    height, width = labels.shape
    for y in range(height):
        row, out = labels[y], plane[top + y, left : left + width]
        for x in range(width):
            out[x] = levels[row[x]]
