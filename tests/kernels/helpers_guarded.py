"""Memory that begins or ends at a protected page: one byte beyond it is a segmentation fault."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

FORBIDDEN, READ_ONLY = 0, mmap.PROT_READ


class Guarded:
    """Memory that starts or ends at a protected page."""

    def __init__(self, size: int, at_end: bool) -> None:
        room = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._room = room
        everything = np.frombuffer(self._map, np.uint8)
        first = mmap.PAGESIZE + (room - size if at_end else 0)
        self.bytes = everything[first : first + size]
        self._protect(0, mmap.PAGESIZE, FORBIDDEN)
        self._protect(mmap.PAGESIZE + room, mmap.PAGESIZE, FORBIDDEN)

    def freeze(self) -> None:
        self._protect(mmap.PAGESIZE, self._room, READ_ONLY)

    def _protect(self, offset: int, length: int, how: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        start = ctypes.c_void_p(self._start + offset)
        if libc.mprotect(start, ctypes.c_size_t(length), how):
            raise OSError(ctypes.get_errno(), "mprotect")
