"""Two things that FFCV 1.0.2 does to the whole process, undone: import this before it.

To declare its memory map read-only it sets `mutable` of `numba.uint8[::1]` to False. Numba has one
object for each type, so that is the type of everybody's arrays of bytes, and functions that were
compiled for them are not found again: a KeyError wherever Numba next looks. And importing FFCV, or
making a loader, changes how many threads PyTorch has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch


@contextmanager
def threads_kept() -> Iterator[None]:
    """However many threads FFCV gives PyTorch, and Numba in this thread, it is as it was after."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


with threads_kept():
    from ffcv.memory_managers import OSCacheManager
    from ffcv.pipeline.compiler import Compiler


def _compile_reader(self: OSCacheManager) -> Callable[..., np.ndarray]:
    """As FFCV's, but the types are found by Numba, which knows that a memory map is read-only."""

    def read(address, mem_state):  # type: ignore[no-untyped-def]
        size = mem_state[2][np.searchsorted(mem_state[1], address)]
        return mem_state[0][address : address + size]

    return Compiler.compile(read)


OSCacheManager.compile_reader = _compile_reader
