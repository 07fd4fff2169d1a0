"""Positions of byte strings in the body of a page, and its levels and dictionary indices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Read = Callable[[int, int], bytes]  # (position, bytes): part of a page's body

_LENGTH = 4  # bytes of the length before each string


def strings(read: Read, at: int, count: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """(position, size) of the PLAIN-encoded strings from `at` on; ValueError if they overrun."""
    if count * _LENGTH > end - at:
        raise ValueError("a page is too small for its values")
    positions, sizes = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        size = int.from_bytes(read(at, _LENGTH), "little")
        positions[i], sizes[i] = at + _LENGTH, size
        at += _LENGTH + size
        if at > end:
            raise ValueError("a value extends beyond its page")
    return positions, sizes


def present(
    read: Read, at: int, max_level: int, count: int, length: int | None
) -> tuple[np.ndarray, int]:
    """bool [count]: True for values that are not null; and the offset at which values begin.

    Levels take `length` bytes; if None, their length is stored before them.
    """
    if not max_level:
        return np.ones(count, bool), at + (length or 0)
    if length is None:
        length = int.from_bytes(read(at, _LENGTH), "little")
        at += _LENGTH
    levels = numbers(read(at, length), max_level.bit_length(), count)
    return levels == max_level, at + length


def numbers(data: bytes, width: int, count: int) -> np.ndarray:
    """int64 [count] from Parquet's hybrid of runs and bit-packed groups of eight."""
    result, filled, at = np.zeros(count, np.int64), 0, 0
    if not width:
        return result
    while filled < count:
        header, at = _varint(data, at)
        if header & 1:
            length = (header >> 1) * width
            bits = np.unpackbits(np.frombuffer(data, np.uint8, length, at), bitorder="little")
            values = bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width))
            at += length
        else:
            length = -(-width // 8)
            value = int.from_bytes(data[at : at + length], "little")
            values = np.full(min(header >> 1, count - filled), value)
            at += length
        if not len(values):
            raise ValueError("an empty run")
        take = min(len(values), count - filled)
        result[filled : filled + take] = values[:take]
        filled += take
    return result


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
        shift += 7
    raise ValueError("the levels of a page are cut off")
