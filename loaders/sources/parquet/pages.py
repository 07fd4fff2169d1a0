"""Walk the pages of a column chunk by their headers (Thrift structs)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from patchmill.loaders.sources.parquet import thrift
from patchmill.loaders.sources.parquet.thrift import Fields, Shape

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # types of pages that hold values

_HEADER_BYTES = 512  # tried first: statistics can make a header long
_MAX_HEADER_BYTES = 64 << 20
_NUMBERS = Shape(dict.fromkeys(range(1, 9)))
_HEADER = Shape({1: None, 2: None, 3: None, 5: _NUMBERS, 7: _NUMBERS, 8: _NUMBERS})


class Page(NamedTuple):
    """A page: the place of its body in the file, and how to read it."""

    kind: int
    offset: int
    stored: int  # bytes of the body in the file
    size: int  # bytes when decompressed
    values: int  # including nulls
    encoding: int
    levels: int  # bytes of levels before the values that are never compressed: version 2 only
    compressed: bool


def walk(file: int, start: int, end: int) -> Iterator[Page]:
    """Pages between two offsets of an open file; ValueError for an invalid page header."""
    while start < end:
        header, length = _read_header(file, start)
        offset, stored = start + length, header[3]
        if stored < 0 or offset + stored > end:
            raise ValueError(f"the page at byte {start} extends beyond its column")
        if page := _page(header, offset, stored):
            if min(page.size, page.values, page.levels) < 0 or page.levels > stored:
                raise ValueError(f"the page at byte {start} has a negative size")
            yield page
        start = offset + stored


def _page(header: Fields, offset: int, stored: int) -> Page | None:
    kind, size = header[1], header[2]
    if kind == DATA:
        return Page(kind, offset, stored, size, header[5][1], header[5][2], 0, True)
    if kind == DICTIONARY:
        return Page(kind, offset, stored, size, header[7][1], header[7][2], 0, True)
    if kind == DATA_V2:
        more = header[8]
        levels = more[5] + more[6]
        return Page(kind, offset, stored, size, more[1], more[4], levels, more.get(7, True))
    return None  # an index page


def _read_header(file: int, start: int) -> tuple[Fields, int]:
    """The fields of the header at an offset, and its length in bytes."""
    length = _HEADER_BYTES
    while True:
        data = os.pread(file, length, start)
        try:
            return thrift.struct(data, 0, _HEADER)
        except IndexError:
            if len(data) < length or length >= _MAX_HEADER_BYTES:
                raise ValueError(f"the page header at byte {start} is cut off") from None
            length *= 8
