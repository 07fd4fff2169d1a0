"""RBD: what the picture's border holds on to is background (Zhu, Liang, Wei, Sun 2014)."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit
from patchmill.loaders.saliency.estimators.cholesky import ldlt_factor, ldlt_solve
from patchmill.loaders.saliency.settings import RBD
from patchmill.loaders.saliency.superpixels.graph import (
    Graph,
    colour_scales,
    edge_costs,
    touches_border,
    two_hop_adjacency,
)
from patchmill.loaders.saliency.superpixels.shortest_paths import floyd_warshall
from patchmill.loaders.saliency.thresholds import minmax_normalise, otsu


def robust_background_saliency(
    graph: Graph, labels: np.ndarray, by: RBD
) -> tuple[np.ndarray, float | None]:
    """Saliency of each superpixel, 0 to 1, and the mean connectivity to the boundary."""
    boundary = touches_border(labels, len(graph.near), by.band)
    scale = colour_scales(graph)
    steps = edge_costs(graph.colour, graph.near, boundary, scale.clip)
    paths = floyd_warshall(steps, 3 * scale.geodesic)
    connectivity = boundary_connectivity(paths, boundary, scale.geodesic)

    background = 1 - np.exp(-(connectivity**2) / (2 * by.connectivity_sigma**2))
    contrast = minmax_normalise(background_contrast(graph, background, by.place_sigma))
    contrast[contrast < otsu(contrast)] = 0

    certain = connectivity > by.background_from
    pull = np.where(certain, by.background_weight, background) * by.background_factor
    ties = two_hop_adjacency(graph.near)
    system = smoothness(graph, ties, boundary, scale.neighbour, by.smoothness, pull + contrast)
    return minmax_normalise(ldlt_solve(ldlt_factor(system), contrast)), float(connectivity.mean())


@jit
def boundary_connectivity(paths, boundary, sigma):
    """float64 [n]: the boundary's share of each superpixel's spanning area, over its root.

    `paths` counts below the diagonal.
    """
    count = len(boundary)
    area, length = np.ones(count), boundary.astype(np.float64)
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        for j in range(i):
            far = paths[i, j]
            if far <= farthest:
                share = np.exp(far * far * scale)
                area[i] += share
                area[j] += share
                length[i] += share * boundary[j]
                length[j] += share * boundary[i]
    return length / np.sqrt(area)


@jit
def background_contrast(graph, background, sigma):
    """float64 [n]: colour distances to what is probably background, near things first."""
    count = len(background)
    contrast = np.zeros(count)
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        for j in range(i):
            far = graph.place[i, j]
            if far <= farthest:
                weighed = graph.colour[i, j] * np.exp(far * far * scale)
                contrast[i] += weighed * background[j]
                contrast[j] += weighed * background[i]
    return contrast


@jit
def smoothness(graph, ties, boundary, sigma, least, pulls):
    """float64 [n, n], lower triangle: the Laplacian of similarities of near superpixels, and
    `pulls` on its diagonal."""
    count = len(boundary)
    system = np.zeros((count, count))
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        system[i, i] += pulls[i]
        for j in range(i):
            far = graph.colour[i, j]
            weight = 0.0
            if (ties[i, j] or (boundary[i] and boundary[j])) and far <= farthest:
                weight = np.exp(far * far * scale)
            if graph.near[i, j]:
                weight += least
            system[i, j] = -weight
            system[i, i] += weight
            system[j, j] += weight
    return system
