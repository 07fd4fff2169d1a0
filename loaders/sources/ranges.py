"""Read ranges of open files in one compiled call that releases the GIL."""

from __future__ import annotations

import ctypes
import functools
import zlib

import numpy as np
from llvmlite import binding
from numba import types

from patchmill.kernels.common.jit import jit

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.intp, types.intp, types.int64)
)
_CRC = "patchmill_zlib_crc32"
_crc32 = types.ExternalFunction(_CRC, types.uintp(types.uintp, types.intp, types.uint32))


def read_into(
    files: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, memory: np.ndarray
) -> np.ndarray:
    """Read `sizes` bytes at `offsets` of file descriptors, one range after another in `memory`.

    Returns int64 [N, 2]: the start and end of each range there; -1 and -1 for a range that ends
    beyond its file, does not fit, or whose file or size is below 0.
    """
    spans = np.empty((len(files), 2), np.int64)
    _read_ranges(files, offsets, sizes, memory, spans)
    return spans


@jit
def _read_ranges(
    files: np.ndarray,
    offsets: np.ndarray,
    sizes: np.ndarray,
    memory: np.ndarray,
    spans: np.ndarray,
) -> None:
    at = 0
    for i in range(len(files)):
        spans[i] = -1
        if files[i] < 0 or sizes[i] < 0 or sizes[i] > len(memory) - at:
            continue
        done, count = 0, 1
        while done < sizes[i] and count > 0:
            place = memory.ctypes.data + at + done
            count = _pread(files[i], place, sizes[i] - done, offsets[i] + done)
            done += max(count, 0)
        if done == sizes[i]:
            spans[i, 0], spans[i, 1] = at, at + done
            at += done


def crc32(memory: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """CRC-32 of each span of `memory`, as zlib computes it; 0 for negative spans."""
    found = np.zeros(len(spans), np.uint32)
    if _has_crc32():
        _crc32_of_all(memory, spans, found)
    else:
        there = spans[:, 0] >= 0
        found[there] = [zlib.crc32(memory[start:end].data) for start, end in spans[there].tolist()]
    return found


@jit
def _crc32_of_all(memory: np.ndarray, spans: np.ndarray, found: np.ndarray) -> None:
    for i in range(len(spans)):
        start, end = spans[i, 0], spans[i, 1]
        if start >= 0:
            found[i] = _crc32(0, memory.ctypes.data + start, end - start)


@functools.cache
def _has_crc32() -> bool:
    """Let compiled code find zlib's function; False if zlib is built into Python."""
    try:
        function = ctypes.CDLL(zlib.__file__).crc32
    except (AttributeError, OSError):
        return False
    address = ctypes.cast(function, ctypes.c_void_p).value
    binding.add_symbol(_CRC, address)
    return address is not None
