"""`PixelBudget`: how many decoded pixels may be in memory at a time, of a chunk or of a batch.

A batch may hold images of the largest size that is allowed, one beside the other. What is beyond
its budget is decoded later, when the memory of what came before is free again: no sample is lost,
and none looks otherwise.
"""

from __future__ import annotations

import threading

import numpy as np


class PixelBudget:
    """Counts the pixels of images that are kept; any thread may."""

    def __init__(self, most: int) -> None:
        self._left, self._lock = most, threading.Lock()

    @property
    def spent(self) -> bool:
        """True if no further image is to be decoded."""
        return self._left <= 0

    def take(self, pixels: int) -> None:
        """Count an image, which may be the one that goes beyond the budget."""
        with self._lock:
            self._left -= pixels

    def take_first(self, pixels: np.ndarray) -> int:
        """Count images until the budget is spent; return how many those are."""
        total = int(pixels.sum(dtype=np.int64))
        with self._lock:
            if total < self._left:
                self._left -= total
                return len(pixels)
            before = np.cumsum(pixels, dtype=np.int64) - pixels
            taken = int(np.count_nonzero(before < self._left))
            self._left -= int(pixels[:taken].sum(dtype=np.int64))
            return taken
