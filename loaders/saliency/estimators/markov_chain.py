"""MC, absorbing Markov chain (Jiang, Zhang, Lu, Yang, Yang 2013): the expected time until a random
walk over superpixels is absorbed by the image border."""

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


def markov_chain_saliency(
    graph: Graph, labels: np.ndarray, constants: MC
) -> tuple[np.ndarray, None]:
    """Saliency of each superpixel, 0 to 1; superpixels of an artificial frame get 0."""
    count = len(graph.adjacency)
    adjacency = with_diagonal_neighbours(graph.adjacency.copy(), labels)
    edges = two_hop_adjacency(with_opposite_sides(adjacency.copy(), labels))
    affinity = affinities(
        graph.colour_distances, edges, constants.steepness, constants.least_affinity
    )

    outliers = affinity.sum(axis=1) < constants.least_degree
    border = touches_border(labels, count, 1)
    states, absorbing = ~outliers, border & ~outliers
    second_ring = (adjacency & absorbing).any(axis=1) & states & ~border
    if (
        second_ring.any()
        and (affinity * adjacency)[absorbing][:, second_ring].sum() <= constants.frame_affinity
    ):  # the border is an artificial frame: the ring inside it absorbs instead
        states, absorbing = states & ~border, second_ring
    states &= reachable(edges, states, absorbing)

    saliency = np.zeros(count)
    saliency[states] = absorption_time(affinity, states, absorbing, constants)
    near_salient = (adjacency & (saliency > constants.outlier_above)).any(axis=1)
    return np.where(outliers & near_salient, 1.0, saliency), None


def absorption_time(
    affinity: np.ndarray, states: np.ndarray, absorbing: np.ndarray, constants: MC
) -> np.ndarray:
    """Expected steps until absorption, normalised; reweighted if that map is ambiguous.

    With degrees D and edges E to the absorbing copies, the equation (I - Q) y = 1 becomes the
    symmetric (diag(D + E) - A) y = D + E.
    """
    system, total, degree = absorption_system(affinity, np.flatnonzero(states), absorbing)
    if not len(total):
        return total
    factored = ldlt_factor(system)
    time = minmax_normalise(ldlt_solve(factored, total))
    if ambiguity(time) < constants.accepted:
        return time
    weight = 1 / degree
    return minmax_normalise(ldlt_solve(factored, total * weight / weight.sum()))


@jit
def affinities(colour_distances, edges, steepness, least):
    """float64 [n, n]: 1 on the diagonal, exp(-steepness * distance) + least on edges, else 0.

    Distances along edges are min-max normalised first.
    """
    count = len(colour_distances)
    low, high = np.float32(1e30), np.float32(0)
    for i in range(count):
        for j in range(i):
            if edges[i, j]:
                low, high = min(low, colour_distances[i, j]), max(high, colour_distances[i, j])
    scale = steepness / (high - low) if high > low else 0.0
    affinity = np.zeros((count, count))
    for i in range(count):
        affinity[i, i] = 1
        for j in range(i):
            if edges[i, j]:
                value = np.exp((low - colour_distances[i, j]) * scale) + least
                affinity[i, j] = affinity[j, i] = value
    return affinity


@jit
def absorption_system(affinity, states, absorbing):
    """diag(D + E) - A, D + E and D over the superpixels numbered in `states`."""
    count = len(states)
    system, total, degree = np.empty((count, count)), np.zeros(count), np.zeros(count)
    for i in range(count):
        row = affinity[states[i]]
        for j in range(count):
            weight = row[states[j]]
            system[i, j] = -weight
            degree[i] += weight
            if absorbing[states[j]]:
                total[i] += weight
        total[i] += degree[i]
        system[i, i] += total[i]
    return system, total, degree


@jit
def reachable(edges, states, absorbing):
    """bool [n]: the states from which a walk reaches an absorbing one, by breadth-first search."""
    reached = absorbing.copy()
    start = np.flatnonzero(absorbing)
    queue = np.empty(len(edges), np.int64)
    queue[: len(start)] = start
    count, at = len(start), 0
    while at < count:
        row = edges[queue[at]]
        at += 1
        for j in range(len(row)):
            if row[j] and states[j] and not reached[j]:
                reached[j] = True
                queue[count] = j
                count += 1
    return reached


@jit
def with_diagonal_neighbours(adjacency, labels):
    """Add superpixels that meet at a corner only (8-connectivity)."""
    height, width = labels.shape
    for y in range(height - 1):
        row, below = labels[y], labels[y + 1]
        for x in range(width - 1):
            adjacency[row[x], below[x + 1]] = True
            adjacency[row[x + 1], below[x]] = True
    return symmetric(adjacency)


@jit
def with_opposite_sides(adjacency, labels):
    """Add pairs that face each other on opposite sides of the image."""
    height, width = labels.shape
    for x in range(width):
        adjacency[labels[0, x], labels[height - 1, x]] = True
    for y in range(height):
        adjacency[labels[y, 0], labels[y, width - 1]] = True
    return symmetric(adjacency)
