"""RBD saliency from libraries: scikit-image's superpixels and the formulas in NumPy."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.segmentation import slic


def rbd(image: np.ndarray) -> np.ndarray:
    """Saliency map, uint8 [h, w], of an image, uint8 [h, w, 3].

    Same constants and steps as ours, without frame detection.
    """
    height, width = image.shape[:2]
    segments = round(height * width / 600)
    labels = slic(image, segments, compactness=20, max_num_iter=10, start_label=0)
    labels = np.unique(labels, return_inverse=True)[1].reshape(height, width)
    colour, position, adjacent = _graph(image, labels)
    adjacent = adjacent | np.eye(len(adjacent), dtype=bool)
    inner = labels[8:-8, 8:-8]
    counts = np.bincount(labels.ravel())
    boundary = counts > np.bincount(inner.ravel(), minlength=len(counts))
    linked = np.outer(boundary, boundary)
    two_hops = adjacent.astype(np.float32) @ adjacent.astype(np.float32) > 0
    clip, geodesic, neighbour = _scales(colour, adjacent, two_hops)

    paths = np.where(adjacent | linked, np.maximum(colour - clip, 0), np.inf)
    np.fill_diagonal(paths, 0)
    for k in range(len(paths)):
        np.minimum(paths, paths[:, k, None] + paths[k], out=paths)
    area = _gaussian(paths, geodesic)  # spanning areas
    connectivity = area[:, boundary].sum(1) / np.sqrt(area.sum(1))
    background = 1 - np.exp(-(connectivity**2) / 2)
    contrast = _normalised((colour * _gaussian(position, 0.4)) @ background)
    contrast[contrast < threshold_otsu(contrast)] = 0

    smoothness = np.where(two_hops | linked, _gaussian(colour, neighbour), 0) + 0.1 * adjacent
    weight = 5 * np.where(connectivity > 3, 1000, background) + contrast
    laplacian = np.diag(smoothness.sum(1) + weight) - smoothness
    saliency = np.linalg.solve(laplacian, contrast)
    return np.rint(255 * _normalised(saliency)).astype(np.uint8)[labels]


def _graph(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances in colour and in position between superpixels, and their adjacency."""
    flat, area = labels.ravel(), np.bincount(labels.ravel())
    rgb = np.stack([np.bincount(flat, image[..., c].ravel()) / area for c in range(3)], -1)
    ys, xs = np.mgrid[: labels.shape[0], : labels.shape[1]]
    positions = [
        np.bincount(flat, v.ravel()) / area / n for v, n in zip((ys, xs), labels.shape, strict=True)
    ]
    adjacent = np.zeros((len(area), len(area)), bool)
    for a, b in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        adjacent[a, b] = adjacent[b, a] = True
    return _distances(rgb2lab(rgb / 255)), _distances(np.stack(positions, -1)), adjacent


def _distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def _scales(
    colour: np.ndarray, adjacent: np.ndarray, two_hops: np.ndarray
) -> tuple[float, float, float]:
    """Clipping distance, and sigmas of geodesic and neighbour distances."""
    others = ~np.eye(len(adjacent), dtype=bool)
    nearest = np.where(adjacent & others, colour, np.inf).min(1).mean()
    clip = np.where(two_hops & others, colour, np.inf).min(1).mean()
    edges = np.sort(colour[adjacent & others])
    top = edges[-max(1, round(len(edges) / 100)) :].mean()
    return clip, max(5, min(10, 3 * nearest, top / 10)), min(3 * nearest, 0.2 * top, 20)


def _gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(distance <= 3 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)


def _normalised(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(np.ptp(values), 1e-12)
