"""Masks read and decoded inside compiled code, by the zlib that FFCV's libraries are linked with.

These are the PNGs that `loaders/copypaste/mask_png.py` writes: grey, of 4 or 8 bits, without
filters. All others, and damaged ones, are left to Python.
"""

from __future__ import annotations

import ctypes

import numba
import numpy as np

from patchmill.loaders.copypaste.mask_png import GREY_STEP, MAGIC
from patchmill.loaders.copypaste.masks import FOREGROUND_LEVEL
from patchmill.loaders.decode.bad_image import MOST_PIXELS
from patchmill.loaders.pipelines.ffcv.jpeg import c_function

DECODED, LARGER, OTHER = range(3)  # decoded; needs more memory; left to Python
MOST_ENCODED = 1 << 24  # bytes of a mask

_HEADER_END, _CHUNK_HEAD = 33, 8  # bytes of magic and IHDR with its checksum; of size and kind
_IDAT, _IEND = (int.from_bytes(kind, "big") for kind in (b"IDAT", b"IEND"))
_START = np.frombuffer(MAGIC + b"\0\0\0\x0dIHDR", np.uint8)
_GREY = 0


_POINTER, _LONG = ctypes.c_void_p, ctypes.c_ulong
_uncompress = c_function("uncompress", ctypes.c_int, _POINTER, _POINTER, _POINTER, _LONG)
_crc32 = c_function("crc32", _LONG, _LONG, _POINTER, ctypes.c_uint)
_pread = c_function(
    "pread", ctypes.c_ssize_t, ctypes.c_int, _POINTER, ctypes.c_size_t, ctypes.c_int64
)  # fmt: skip


@numba.njit(nogil=True, error_model="numpy")
def read(
    file: int,
    start: int,
    size: int,
    checksum: int,
    encoded: np.ndarray,
    memory: np.ndarray,
    shape: np.ndarray,
) -> int:
    """Decode the mask at these bytes of a file to the start of `memory`; set its shape.

    `encoded` is large enough for the PNG. LARGER: `memory` must have three times the mask's pixels.
    """
    if size > encoded.size or size < _HEADER_END:
        return OTHER
    if _pread(file, encoded.ctypes.data, size, start) != size:
        return OTHER
    if checksum != 0 and np.int64(_crc32(0, encoded.ctypes.data, size)) != checksum:
        return OTHER
    for i in range(len(_START)):
        if encoded[i] != _START[i]:
            return OTHER
    width, height, bits = _number(encoded, 16), _number(encoded, 20), np.int64(encoded[24])
    if (bits != 4 and bits != 8) or encoded[25] != _GREY or encoded[26] or encoded[27]:
        return OTHER
    if encoded[28] or width * height <= 0 or width * height > MOST_PIXELS:
        return OTHER
    row = 1 + (width * bits + 7) // 8
    shape[0], shape[1] = height, width
    if memory.size < height * width + height * row:
        return LARGER if memory.size < 3 * height * width else OTHER
    packed = _join_data(encoded, size)
    rows, length = memory[height * width :], np.empty(1, np.int64)
    length[0] = height * row
    if packed == 0 or _uncompress(
        rows.ctypes.data, length.ctypes.data, encoded.ctypes.data, packed
    ) != 0 or length[0] != height * row:  # fmt: skip
        return OTHER
    for y in range(height):
        if rows[y * row] != 0:
            return OTHER
        _unpack(rows[y * row + 1 : (y + 1) * row], bits, memory[y * width : (y + 1) * width])
    return DECODED


@numba.njit(nogil=True, error_model="numpy")
def share(plane: np.ndarray) -> float:
    """Share of foreground pixels of a mask; -1 if all or none of its pixels are foreground."""
    count = 0
    for i in range(plane.size):
        count += plane[i] >= FOREGROUND_LEVEL
    return -1.0 if count == 0 or count == plane.size else count / plane.size


@numba.njit(nogil=True, error_model="numpy")
def _join_data(encoded: np.ndarray, size: int) -> int:
    """Move the contents of all IDAT chunks to the front; return their size, 0 if one is damaged."""
    at, packed = len(MAGIC), 0
    while at + _CHUNK_HEAD + 4 <= size:
        length, kind, start = _number(encoded, at), _number(encoded, at + 4), at + _CHUNK_HEAD
        if start + length + 4 > size:
            return 0
        data = encoded[at + 4 : start + length]
        if np.int64(_crc32(0, data.ctypes.data, data.size)) != _number(encoded, start + length):
            return 0
        if kind == _IEND:
            return packed
        if kind == _IDAT:
            for i in range(length):
                encoded[packed + i] = encoded[start + i]
            packed += length
        at = start + length + 4
    return 0


@numba.njit(nogil=True, error_model="numpy")
def _unpack(packed: np.ndarray, bits: int, out: np.ndarray) -> None:
    if bits == 8:
        out[:] = packed
        return
    for i in range(out.size // 2):
        out[2 * i] = (packed[i] >> 4) * GREY_STEP
        out[2 * i + 1] = (packed[i] & 15) * GREY_STEP
    if out.size % 2:
        out[out.size - 1] = (packed[out.size // 2] >> 4) * GREY_STEP


@numba.njit(nogil=True, error_model="numpy")
def _number(data: np.ndarray, at: int) -> np.int64:
    """The big-endian 32-bit number at an offset."""
    return (
        (np.int64(data[at]) << 24)
        | (np.int64(data[at + 1]) << 16)
        | (np.int64(data[at + 2]) << 8)
        | np.int64(data[at + 3])
    )
