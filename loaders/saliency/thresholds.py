"""Maps on a common scale: normalised, thresholded, scored."""

from __future__ import annotations

import numpy as np

_OTSU_BINS = 256
_SCORE_BINS = 10


def minmax_normalise(values: np.ndarray) -> np.ndarray:
    """The least becomes 0 and the largest 1; what is flat becomes 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high - low > 1e-9 * abs(high) else values * 0


def otsu(values: np.ndarray) -> float:
    """The threshold that parts `values` into two classes which differ most: the middle of one of
    256 bins between the least value and the largest."""
    counts, edges = np.histogram(values, _OTSU_BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * middles) / np.maximum(below, 1)
    mean_above = np.cumsum((counts * middles)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(middles[np.argmax(between)])


def ambiguity(values: np.ndarray) -> float:
    """How undecided a map of 0 to 1 is: 1 if all is black or white, 5 if all is in the middle.

    The mean over ten bins j of min(j, 11 - j), which the authors of MC accept below 2.
    """
    return _score(np.histogram(values, _SCORE_BINS, (0, 1))[0])


def ambiguity_of_histogram(counts: np.ndarray) -> float:
    """As `score`, of a map in which so many pixels have each of 256 grey levels."""
    return _score(np.bincount(np.arange(256) * _SCORE_BINS // 256, counts))


def _score(counts: np.ndarray) -> float:
    j = np.arange(1, _SCORE_BINS + 1)
    return float((counts * np.minimum(j, _SCORE_BINS + 1 - j)).sum() / counts.sum())
