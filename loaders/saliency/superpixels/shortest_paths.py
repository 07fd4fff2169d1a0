"""Shortest paths on dense cost tables: all pairs (Floyd-Warshall) and single source (Dijkstra)."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.superpixels.graph import FAR
from patchmill.loaders.saliency.superpixels.lab import BLOCK, padded_width


@jit
def floyd_warshall(costs, limit):
    """All-pairs distances, in place in the lower triangle of float32 [n, padded n].

    Exact up to `limit`; larger distances may be overestimated, which saves most of the work in
    colourful images. At most n^3 / 2 additions and minima, 16 at a time.
    """
    count, padded = costs.shape
    through = np.empty(padded, np.float32)
    through[:] = FAR
    for k in range(count):
        through[:k] = costs[k, :k]
        for j in range(k, count):
            through[j] = costs[j, k]
        through[k] = 0
        for i in range(count):
            if i != k and through[i] <= limit:
                relax(costs[i, : padded_width(i)], through[i], through)
    return costs


@jit
def relax(row, first, through):
    for block in range(len(row) // BLOCK):
        at = np.uint64(block) * np.uint64(BLOCK)
        for i in range(BLOCK):
            j = at + np.uint64(i)
            row[j] = min(row[j], first + through[j])


@jit
def dijkstra(costs, sources):
    """float32 [n]: distance of each superpixel from the nearest source, on the dense table."""
    count = len(sources)
    distance = np.where(sources, np.float32(0), FAR)
    done = np.zeros(count, np.bool_)
    for _ in range(count):
        nearest = -1
        for i in range(count):
            if not done[i] and (nearest < 0 or distance[i] < distance[nearest]):
                nearest = i
        done[nearest] = True
        row, base = costs[nearest], distance[nearest]
        for j in range(count):
            distance[j] = min(distance[j], base + row[j])
    return distance
