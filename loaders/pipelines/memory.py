"""Batch memory that comes back: a fresh allocation of half a gigabyte costs more than its views.

The first touch of every page is a fault, about a tenth of a second for a large batch. So blocks are
kept and handed out again as soon as no tensor of the batch is alive any more, however long the user
keeps one.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch

from patchmill.loaders.errors import MillError

_ALIGNMENT = 64  # what streaming stores want


class Blocks:
    """Equal blocks of memory, lent as flat tensors."""

    def __init__(self, elements: int, dtype: torch.dtype, pinned: bool = False) -> None:
        self._elements, self._dtype, self._pinned = elements, dtype, pinned
        self._free: deque[np.ndarray] = deque()

    def take(self) -> torch.Tensor:
        """A flat tensor of `elements` numbers, values undefined; its memory returns by itself."""
        try:
            block = self._free.pop()
        except IndexError:
            block = self._new()
        loan = block[:]  # a new array object: it dies with the last tensor that uses the memory
        weakref.finalize(loan, self._free.append, block).atexit = False
        return torch.from_numpy(loan).view(self._dtype)

    def clear(self) -> None:
        """Give back to the system what is not lent."""
        self._free.clear()

    def _new(self) -> np.ndarray:
        size = self._elements * self._dtype.itemsize
        try:
            if self._pinned:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError, RuntimeError):
            raise MillError(
                f"there is no memory for another batch of {size / 2**30:.1f} GiB: take a smaller "
                "batch_size, prefetch or recipe"
            ) from None
        skip = -memory.ctypes.data % _ALIGNMENT
        return memory[skip : skip + size]
