"""`PixelBudget`: limit on the decoded pixels of a chunk or a batch that are in memory together.

A batch may consist of images of the largest size allowed. Images beyond its budget are decoded
later, when the memory of earlier ones is free again: no sample is lost, and none looks different.
"""

from __future__ import annotations

import threading

import numpy as np


class PixelBudget:
    """Thread-safe count of the pixels of images that are kept."""

    def __init__(self, most: int) -> None:
        self._left, self._lock = most, threading.Lock()

    @property
    def spent(self) -> bool:
        """True if no further image is to be decoded."""
        return self._left <= 0

    def take(self, pixels: int) -> None:
        """Count an image, which may be the one that exceeds the budget."""
        with self._lock:
            self._left -= pixels

    def take_first(self, pixels: np.ndarray) -> int:
        """Count images until the budget is spent; return their number."""
        total = int(pixels.sum(dtype=np.int64))
        with self._lock:
            if total < self._left:
                self._left -= total
                return len(pixels)
            before = np.cumsum(pixels, dtype=np.int64) - pixels
            taken = int(np.count_nonzero(before < self._left))
            self._left -= int(pixels[:taken].sum(dtype=np.int64))
            return taken
