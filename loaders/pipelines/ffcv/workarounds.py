"""Workarounds for three defects of FFCV 1.0.2. Import this module before anything of FFCV.

* *Numba types.* To declare its memory map read-only, FFCV sets `mutable` of `numba.uint8[::1]` to
  False. Numba has one object per type, so this changes the type of all byte arrays in the process,
  and functions already compiled for them are no longer found: a KeyError at Numba's next look-up.
  `OSCacheManager.compile_reader` is replaced by one that leaves the types to Numba.
* *Bus errors.* FFCV memory-maps its file, and reading the map of a truncated file crashes the
  process: its maps are guarded.
* *Thread counts.* Importing FFCV, or making a loader, changes how many threads PyTorch and Numba
  use. `preserve_thread_counts` restores both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch

from patchmill.loaders.files import mapped


@contextmanager
def preserve_thread_counts() -> Iterator[None]:
    """Restore the thread counts of PyTorch, and of Numba in this thread, on exit."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


with preserve_thread_counts():
    from ffcv.memory_managers import OSCacheManager
    from ffcv.memory_managers.os_cache import OSCacheContext
    from ffcv.pipeline.compiler import Compiler


def _compile_reader(self: OSCacheManager) -> Callable[..., np.ndarray]:
    """Compile FFCV's reader with types inferred by Numba, which knows memory maps as read-only."""

    def read(address, mem_state):  # type: ignore[no-untyped-def]
        size = mem_state[2][np.searchsorted(mem_state[1], address)]
        return mem_state[0][address : address + size]

    return Compiler.compile(read)


_map_file = OSCacheContext.__enter__


def _map_guarded(self: OSCacheContext) -> OSCacheContext:
    entered = _map_file(self)
    mapped.guard(self.mmap._mmap, self.manager.reader.file_name)
    return entered


OSCacheManager.compile_reader = _compile_reader
OSCacheContext.__enter__ = _map_guarded
