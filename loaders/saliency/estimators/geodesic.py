"""GS, geodesic saliency (Wei, Wen, Zhu, Sun 2012): distance to the image border along the path of
least colour change."""

from __future__ import annotations

import numpy as np

from patchmill.loaders.saliency.settings import GS
from patchmill.loaders.saliency.superpixels.graph import (
    Graph,
    colour_scales,
    edge_costs,
    touches_border,
)
from patchmill.loaders.saliency.superpixels.shortest_paths import dijkstra
from patchmill.loaders.saliency.thresholds import minmax_normalise


def geodesic_saliency(graph: Graph, labels: np.ndarray, constants: GS) -> tuple[np.ndarray, None]:
    """Saliency of each superpixel, 0 to 1."""
    count = len(graph.adjacency)
    boundary = touches_border(labels, count, constants.band)
    costs = edge_costs(graph.colour_distances, graph.adjacency, boundary, colour_scales(graph).clip)
    distance = dijkstra(costs, background_boundary(graph, boundary, constants))
    saturation = np.sort(distance)[-max(1, round(constants.saturated * count))]
    return (np.minimum(distance / saturation, 1) if saturation > 0 else distance * 0), None


def background_boundary(graph: Graph, boundary: np.ndarray, constants: GS) -> np.ndarray:
    """bool [n]: the boundary superpixels that resemble others of the boundary."""
    at = np.flatnonzero(boundary)
    pairs = np.ix_(at, at)
    difference = graph.colour_distances[pairs] / (
        1 + constants.place_weight * graph.position_distances[pairs]
    )
    np.fill_diagonal(difference, np.inf)
    neighbours = min(max(1, round(len(boundary) / 200 * constants.nearest)), len(at) - 1)
    background = boundary.copy()
    if neighbours > 0:
        mean = np.sort(difference, axis=1)[:, :neighbours].mean(axis=1)
        if mean.max() - mean.min() > constants.spread:
            background[at[minmax_normalise(mean) > constants.kept]] = False
    return background
