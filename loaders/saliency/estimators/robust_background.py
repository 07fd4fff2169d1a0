"""RBD, robust background detection (Zhu, Liang, Wei, Sun 2014): boundary connectivity finds the
background, and least squares fit the map to foreground and background weights."""

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
    graph: Graph, labels: np.ndarray, constants: RBD
) -> tuple[np.ndarray, float | None]:
    """Saliency of each superpixel, 0 to 1, and the mean boundary connectivity."""
    boundary = touches_border(labels, len(graph.adjacency), constants.band)
    scales = colour_scales(graph)
    costs = edge_costs(graph.colour_distances, graph.adjacency, boundary, scales.clip)
    geodesics = floyd_warshall(costs, 3 * scales.geodesic)
    connectivity = boundary_connectivity(geodesics, boundary, scales.geodesic)

    background = 1 - np.exp(-(connectivity**2) / (2 * constants.connectivity_sigma**2))
    contrast = minmax_normalise(background_contrast(graph, background, constants.place_sigma))
    contrast[contrast < otsu(contrast)] = 0

    certain = connectivity > constants.background_from
    weight = np.where(certain, constants.background_weight, background)
    weight = weight * constants.background_factor
    edges = two_hop_adjacency(graph.adjacency)
    system = smoothness_system(
        graph, edges, boundary, scales.neighbour, constants.smoothness, weight + contrast
    )
    saliency = ldlt_solve(ldlt_factor(system), contrast)
    return minmax_normalise(saliency), float(connectivity.mean())


@jit
def boundary_connectivity(geodesics, boundary, sigma):
    """float64 [n]: each superpixel's length along the boundary over the root of its spanning area.

    Reads the lower triangle of `geodesics`.
    """
    count = len(boundary)
    area, length = np.ones(count), boundary.astype(np.float64)
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        for j in range(i):
            distance = geodesics[i, j]
            if distance <= farthest:
                weight = np.exp(distance * distance * scale)
                area[i] += weight
                area[j] += weight
                length[i] += weight * boundary[j]
                length[j] += weight * boundary[i]
    return length / np.sqrt(area)


@jit
def background_contrast(graph, background, sigma):
    """float64 [n]: colour distances to all superpixels, weighted by their background probability
    and by how near they are."""
    count = len(background)
    contrast = np.zeros(count)
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        for j in range(i):
            distance = graph.position_distances[i, j]
            if distance <= farthest:
                weighted = graph.colour_distances[i, j] * np.exp(distance * distance * scale)
                contrast[i] += weighted * background[j]
                contrast[j] += weighted * background[i]
    return contrast


@jit
def smoothness_system(graph, edges, boundary, sigma, least, diagonal):
    """float64 [n, n], lower triangle: the graph Laplacian of colour similarity, plus `diagonal`."""
    count = len(boundary)
    system = np.zeros((count, count))
    farthest, scale = np.float32(3 * sigma), np.float32(-0.5 / sigma**2)
    for i in range(count):
        system[i, i] += diagonal[i]
        for j in range(i):
            distance = graph.colour_distances[i, j]
            weight = 0.0
            if (edges[i, j] or (boundary[i] and boundary[j])) and distance <= farthest:
                weight = np.exp(distance * distance * scale)
            if graph.adjacency[i, j]:
                weight += least
            system[i, j] = -weight
            system[i, i] += weight
            system[j, j] += weight
    return system
