"""Fragments of a Snappy stream that can be decompressed independently.

Snappy's encoders compress pieces of 64 KiB one by one, and a copy never reaches back into an
earlier piece. That is not part of the format, so it is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from patchmill.kernels.common.jit import jit_ieee

FRAGMENT = 1 << 16


def fragments(data: bytes, size: int) -> np.ndarray | None:
    """int64 [n + 1]: offsets of the fragments of a valid stream, and of its end.

    `size` is the size of the decompressed data. None if the fragments are not independent.
    """
    at = 0
    while data[at] >= 128:
        at += 1
    starts = np.empty(-(-size // FRAGMENT) + 1, np.int64)
    count = _fragments(np.frombuffer(data, np.uint8), at + 1, starts)
    if count != len(starts) - 1:
        return None
    starts[count] = len(data)
    return starts


def stream(data: bytes, size: int) -> bytes:
    """Fragments that decompress to `size` bytes, as a complete stream."""
    header, rest = bytearray(), size
    while rest >= 128:
        header.append(rest & 127 | 128)
        rest >>= 7
    header.append(rest)
    return bytes(header) + data


@jit_ieee
def _fragments(data: Any, at: Any, starts: Any) -> int:
    """Fill in the offsets of the fragments; return their number, or -1."""
    out: Any = 0
    begin: Any = -FRAGMENT
    count: Any = 0
    while at < len(data):
        if out == begin + FRAGMENT:
            if count == len(starts) - 1:
                return -1
            starts[count] = at
            count += 1
            begin = out
        tag: Any = np.int64(data[at])
        length: Any = 0
        reach: Any = 0
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            at += 1
            if length >= 60:
                width = length - 59
                length = 0
                for i in range(width):
                    length |= np.int64(data[at + i]) << (8 * i)
                at += width
            length += 1
            at += length
        elif kind == 1:
            length = 4 + (tag >> 2 & 7)
            reach = tag >> 5 << 8 | np.int64(data[at + 1])
            at += 2
        else:
            length = 1 + (tag >> 2)
            width = 2 if kind == 2 else 4
            for i in range(width):
                reach |= np.int64(data[at + 1 + i]) << (8 * i)
            at += 1 + width
        if reach > out - begin or out + length > begin + FRAGMENT:
            return -1
        out += length
    return count
