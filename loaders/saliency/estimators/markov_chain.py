"""MC: salient is where a random walk stays long before the border absorbs it (Jiang, Zhang, Lu,
Yang, Yang 2013)."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.estimators.cholesky import ldlt_factor, ldlt_solve
from patchmill.loaders.saliency.settings import MC
from patchmill.loaders.saliency.superpixels.graph import (
    Graph,
    symmetric,
    touches_border,
    two_hop_adjacency,
)
from patchmill.loaders.saliency.thresholds import ambiguity, minmax_normalise


def markov_chain_saliency(graph: Graph, labels: np.ndarray, by: MC) -> tuple[np.ndarray, None]:
    """Saliency of each superpixel, 0 to 1; what belongs to an artificial frame gets 0."""
    count = len(graph.near)
    near = with_corners(graph.near.copy(), labels)
    ties = two_hop_adjacency(with_opposite(near.copy(), labels))
    affinity = affinities(graph.colour, ties, by.steepness, by.least_affinity)

    outlying = affinity.sum(axis=1) < by.least_degree
    ring = touches_border(labels, count, 1)
    walked, absorbing = ~outlying, ring & ~outlying
    second = (near & absorbing).any(axis=1) & walked & ~ring
    if second.any() and (affinity * near)[absorbing][:, second].sum() <= by.frame_affinity:
        walked, absorbing = walked & ~ring, second
    walked &= reachable(ties, walked, absorbing)

    found = np.zeros(count)
    found[walked] = absorbed_time(affinity, walked, absorbing, by)
    beside = (near & (found > by.outlier_above)).any(axis=1)
    return np.where(outlying & beside, 1.0, found), None


def absorbed_time(
    affinity: np.ndarray, walked: np.ndarray, absorbing: np.ndarray, by: MC
) -> np.ndarray:
    """Expected steps until absorption, normalised; weighted where the plain map is undecided.

    With degree D and ties E to absorbing copies, (I - Q) y = 1 is (diag(D + E) - A) y = D + E,
    which is symmetric.
    """
    system, total, degree = chain(affinity, np.flatnonzero(walked), absorbing)
    if not len(total):
        return total
    factored = ldlt_factor(system)
    time = minmax_normalise(ldlt_solve(factored, total))
    if ambiguity(time) < by.accepted:
        return time
    rare = 1 / degree
    return minmax_normalise(ldlt_solve(factored, total * rare / rare.sum()))


@jit
def affinities(colour, ties, steepness, least):
    """float64 [n, n]: 1 with itself, exp(-steepness * difference) with what is tied, else 0.

    Differences of tied superpixels are normalised to 0 to 1.
    """
    count = len(colour)
    low, high = np.float32(1e30), np.float32(0)
    for i in range(count):
        for j in range(i):
            if ties[i, j]:
                low, high = min(low, colour[i, j]), max(high, colour[i, j])
    scale = steepness / (high - low) if high > low else 0.0
    found = np.zeros((count, count))
    for i in range(count):
        found[i, i] = 1
        for j in range(i):
            if ties[i, j]:
                found[i, j] = found[j, i] = np.exp((low - colour[i, j]) * scale) + least
    return found


@jit
def chain(affinity, walked, absorbing):
    """diag(D + E) - A, D + E and D of the superpixels with numbers `walked`."""
    count = len(walked)
    system, total, degree = np.empty((count, count)), np.zeros(count), np.zeros(count)
    for i in range(count):
        row = affinity[walked[i]]
        for j in range(count):
            tie = row[walked[j]]
            system[i, j] = -tie
            degree[i] += tie
            if absorbing[walked[j]]:
                total[i] += tie
        total[i] += degree[i]
        system[i, i] += total[i]
    return system, total, degree


@jit
def reachable(ties, walked, absorbing):
    """bool [n]: what a walk can leave for the border. Only outliers could be in its way."""
    reached = absorbing.copy()
    pending = np.flatnonzero(absorbing)
    waiting = np.empty(len(ties), np.int64)
    waiting[: len(pending)] = pending
    count, at = len(pending), 0
    while at < count:
        row = ties[waiting[at]]
        at += 1
        for j in range(len(row)):
            if row[j] and walked[j] and not reached[j]:
                reached[j] = True
                waiting[count] = j
                count += 1
    return reached


@jit
def with_corners(near, labels):
    """Also what meets at a corner."""
    height, width = labels.shape
    for y in range(height - 1):
        row, below = labels[y], labels[y + 1]
        for x in range(width - 1):
            near[row[x], below[x + 1]] = True
            near[row[x + 1], below[x]] = True
    return symmetric(near)


@jit
def with_opposite(near, labels):
    """Also what faces each other on opposite sides of the picture."""
    height, width = labels.shape
    for x in range(width):
        near[labels[0, x], labels[height - 1, x]] = True
    for y in range(height):
        near[labels[y, 0], labels[y, width - 1]] = True
    return symmetric(near)
