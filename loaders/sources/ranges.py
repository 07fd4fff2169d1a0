"""Read ranges of open files in one compiled call, which does not hold the interpreter's lock."""

from __future__ import annotations

import numpy as np
from numba import types

from patchmill.kernels.common.jit import jit

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.intp, types.intp, types.int64)
)


def read_into(
    files: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, memory: np.ndarray
) -> np.ndarray:
    """Read `sizes` bytes at `offsets` of file descriptors, one range behind the other in `memory`.

    Returns int64 [N, 2]: where each begins and ends there; -1 and -1 for a range that ends beyond
    its file, has no room, or whose file or size is below 0.
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
