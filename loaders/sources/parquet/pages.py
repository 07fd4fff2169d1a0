"""The pages of a column chunk, walked by their headers (structs of Thrift's compact protocol)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages that hold values

_HEADER_BYTES = 512  # tried first: statistics can make a header long
_MAX_HEADER_BYTES = 64 << 20
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class Page(NamedTuple):
    """A page: the place of its body in the file, and how to read that."""

    kind: int
    offset: int
    stored: int  # bytes of the body in the file
    size: int  # bytes when decompressed
    values: int  # nulls included
    encoding: int
    levels: int  # bytes of levels before the values that are never compressed: version 2 only
    compressed: bool


def walk(file: int, start: int, end: int) -> Iterator[Page]:
    """Pages between two offsets of an open file; ValueError for what is no page header."""
    while start < end:
        header, length = _read_header(file, start)
        offset, stored = start + length, int(header[3])
        if stored < 0 or offset + stored > end:
            raise ValueError(f"the page at byte {start} does not end before its column does")
        if page := _page(header, offset, stored):
            yield page
        start = offset + stored


def _page(header: dict[int, Any], offset: int, stored: int) -> Page | None:
    kind, size = int(header[1]), int(header[2])
    if kind == DATA:
        return Page(kind, offset, stored, size, header[5][1], header[5][2], 0, True)
    if kind == DICTIONARY:
        return Page(kind, offset, stored, size, header[7][1], header[7][2], 0, True)
    if kind == DATA_V2:
        more = header[8]
        levels = more[5] + more[6]
        return Page(kind, offset, stored, size, more[1], more[4], levels, more.get(7, True))
    return None  # an index page


def _read_header(file: int, start: int) -> tuple[dict[int, Any], int]:
    """The fields of the header at an offset, and its length in bytes."""
    length = _HEADER_BYTES
    while True:
        data = os.pread(file, length, start)
        try:
            fields, end = _struct(data, 0)
            return fields, end
        except IndexError:
            if len(data) < length or length >= _MAX_HEADER_BYTES:
                raise ValueError(f"the page header at byte {start} is cut off") from None
            length *= 8


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(kind, data, at)
    return fields, at + 1


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _BYTE:
        return data[at], at + 1
    if kind in (_I16, _I32, _I64):
        return _integer(data, at)
    if kind == _DOUBLE:
        return None, _end(data, at, 8)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, _end(data, at, length)
    if kind in (_LIST, _SET):
        count, item = data[at] >> 4, data[at] & 15
        at += 1
        if count == 15:
            count, at = _varint(data, at)
        _end(data, at, count)  # an item has a byte at least
        for _ in range(count):
            _, at = (None, at + 1) if item in (_TRUE, _FALSE) else _value(item, data, at)
        return None, at
    if kind == _STRUCT:
        return _struct(data, at)
    raise ValueError(f"a page header holds a field of the unknown type {kind}")


def _end(data: bytes, at: int, length: int) -> int:
    if at + length > len(data):
        raise IndexError
    return at + length


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
