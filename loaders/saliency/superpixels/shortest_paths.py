"""Shortest paths between superpixels: from one source, and between all pairs."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.superpixels.graph import FAR
from patchmill.loaders.saliency.superpixels.lab import BLOCK, padded


@jit
def floyd_warshall(steps, beyond):
    """Floyd and Warshall, in place, on the lower triangle of float32 [n, padded n].

    Right for all distances up to `beyond`; larger ones may be left too large, which saves most of
    the work in pictures of many colours. n^3 / 2 additions and minima at most, 16 at a time.
    """
    count, room = steps.shape
    through = np.empty(room, np.float32)
    through[:] = FAR
    for k in range(count):
        through[:k] = steps[k, :k]
        for j in range(k, count):
            through[j] = steps[j, k]
        through[k] = 0
        for i in range(count):
            if i != k and through[i] <= beyond:
                relax(steps[i, : padded(i)], through[i], through)
    return steps


@jit
def relax(row, first, through):
    for block in range(len(row) // BLOCK):
        at = np.uint64(block) * np.uint64(BLOCK)
        for i in range(BLOCK):
            j = at + np.uint64(i)
            row[j] = min(row[j], first + through[j])


@jit
def dijkstra(steps, sources):
    """float32 [n]: the cost of the cheapest path from any source, by Dijkstra on the full table."""
    count = len(sources)
    cost = np.where(sources, np.float32(0), FAR)
    done = np.zeros(count, np.bool_)
    for _ in range(count):
        here = -1
        for i in range(count):
            if not done[i] and (here < 0 or cost[i] < cost[here]):
                here = i
        done[here] = True
        row, base = steps[here], cost[here]
        for j in range(count):
            cost[j] = min(cost[j], base + row[j])
    return cost
