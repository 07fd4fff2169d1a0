"""Read many small files in one compiled call that releases the GIL.

Threads that read small files one at a time spend more on handing the GIL around than on reading.
"""

from __future__ import annotations

import numpy as np
from numba import types

from patchmill.kernels.common.jit import jit
from patchmill.loaders.files.regular_files import FLAGS

_PATH_BYTES = 4096  # including the terminating zero

_open = types.ExternalFunction("open", types.int32(types.intp, types.int32))
# Not `read`, which can block on a pipe; `pread` fails there.
_read = types.ExternalFunction(
    "pread", types.intp(types.int32, types.intp, types.intp, types.int64)
)
_close = types.ExternalFunction("close", types.int32(types.int32))


def read(
    folder: bytes, paths: np.ndarray, starts: np.ndarray, indices: np.ndarray, memory: np.ndarray
) -> list[bytes | None]:
    """Contents of files below `folder`, whose paths are items of these columns (`columns.join`).

    They are read into `memory` (uint8) first. None for a file that cannot be read or does not fit
    into memory.
    """
    spans, view = read_into(folder, paths, starts, indices, memory), memory.data
    return [bytes(view[start:end]) if start >= 0 else None for start, end in spans.tolist()]


def read_into(
    folder: bytes, paths: np.ndarray, starts: np.ndarray, indices: np.ndarray, memory: np.ndarray
) -> np.ndarray:
    """Read such files into `memory`; return [N, 2]: start and end of each there, or -1 and -1."""
    spans = np.empty((len(indices), 2), np.int64)
    _read_files(np.frombuffer(folder, np.uint8), paths, starts, indices, memory, spans)
    return spans


@jit
def _read_files(
    folder: np.ndarray,
    paths: np.ndarray,
    starts: np.ndarray,
    indices: np.ndarray,
    memory: np.ndarray,
    spans: np.ndarray,
) -> None:
    """Read files one after another; `spans` gets the start and end of each, or -1."""
    path, at = np.empty(_PATH_BYTES, np.uint8), 0
    path[: len(folder)] = folder
    for i in range(len(indices)):
        first, last = starts[indices[i]], starts[indices[i] + 1]
        length = len(folder) + last - first
        spans[i] = -1
        if length >= _PATH_BYTES:
            continue
        path[len(folder) : length] = paths[first:last]
        path[length] = 0
        file = _open(path.ctypes.data, FLAGS)
        if file < 0:
            continue
        size, end = 1, at
        while size > 0 and end < len(memory):
            size = _read(file, memory.ctypes.data + end, len(memory) - end, end - at)
            end += max(size, 0)
        _close(file)
        if size == 0:  # the file's end
            spans[i, 0], spans[i, 1] = at, end
            at = end
