"""Normalising, thresholding and scoring saliency maps."""

from __future__ import annotations

import numpy as np

from patchmill.kernels.common.jit import jit

_OTSU_BINS = 256
_AMBIGUITY_BINS = 10


def minmax_normalise(values: np.ndarray) -> np.ndarray:
    """Scale the minimum to 0 and the maximum to 1; constant values become 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high - low > 1e-9 * abs(high) else values * 0


def otsu(values: np.ndarray) -> float:
    """Otsu's threshold over 256 bins, which maximises the variance between the two classes."""
    counts, edges = np.histogram(values, _OTSU_BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * middles) / np.maximum(below, 1)
    mean_above = np.cumsum((counts * middles)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(middles[np.argmax(between)])


def ambiguity(values: np.ndarray) -> float:
    """Ambiguity of a map in 0..1: from 1, all black or white, to 5, all mid-grey.

    The mean over ten bins j of min(j, 11 - j); the authors of MC accept maps below 2.
    """
    return _ambiguity(np.histogram(values, _AMBIGUITY_BINS, (0, 1))[0])


def ambiguity_of_histogram(counts: np.ndarray) -> float:
    """`ambiguity` of a uint8 map, from the pixel counts of its 256 grey levels."""
    return _ambiguity(np.bincount(np.arange(256) * _AMBIGUITY_BINS // 256, counts))


def _ambiguity(counts: np.ndarray) -> float:
    j = np.arange(1, _AMBIGUITY_BINS + 1)
    return float((counts * np.minimum(j, _AMBIGUITY_BINS + 1 - j)).sum() / counts.sum())


@jit
def grey_histogram(plane):
    """int64 [256]: pixel counts of the grey levels of a uint8 [h, w] plane."""
    counts = np.zeros((2, 256), np.int64)  # two, so that equal neighbours do not stall each other
    for y in range(len(plane)):
        row = plane[y]
        for x in range(len(row)):
            counts[x & 1, row[x]] += 1
    return counts[0] + counts[1]
