"""GS: salient is what is far from the border along the smoothest path (Wei, Wen, Zhu, Sun 2012)."""

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


def geodesic_saliency(graph: Graph, labels: np.ndarray, by: GS) -> tuple[np.ndarray, None]:
    """Saliency of each superpixel, 0 to 1."""
    count = len(graph.near)
    boundary = touches_border(labels, count, by.band)
    steps = edge_costs(graph.colour, graph.near, boundary, colour_scales(graph).clip)
    cost = dijkstra(steps, background(graph, boundary, by))
    full = np.sort(cost)[-max(1, round(by.saturated * count))]
    return (np.minimum(cost / full, 1) if full > 0 else cost * 0), None


def background(graph: Graph, boundary: np.ndarray, by: GS) -> np.ndarray:
    """bool [n]: the boundary pieces that are like some others of the boundary."""
    at = np.flatnonzero(boundary)
    among = np.ix_(at, at)
    unlike = graph.colour[among] / (1 + by.place_weight * graph.place[among])
    np.fill_diagonal(unlike, np.inf)
    compared = min(max(1, round(len(boundary) / 200 * by.nearest)), len(at) - 1)
    kept = boundary.copy()
    if compared > 0:
        mean = np.sort(unlike, axis=1)[:, :compared].mean(axis=1)
        if mean.max() - mean.min() > by.spread:
            kept[at[minmax_normalise(mean) > by.kept]] = False
    return kept
