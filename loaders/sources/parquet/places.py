"""Places of the images of a row group: the shortest read that yields each of them.

A *chunk* is the smallest range of a file that can be decompressed by itself: a page, a fragment of
a page compressed by Snappy, or a whole row group if pyarrow has to decode it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from patchmill.loaders.sources.parquet import pages, snappy, values
from patchmill.loaders.sources.parquet.footer import BYTE_ARRAY, Chunk, Group
from patchmill.loaders.sources.parquet.pages import Page

CODECS = ("", "", "", "snappy", "gzip", "brotli", "zstd")  # pyarrow's name of each compression
STORED, FRAGMENT, ROWS = 0, 1, 2  # codecs without a name: none, Snappy's fragments, a row group

_FORMAT_CODECS = {0: STORED, 1: 3, 2: 4, 4: 5, 6: 6}  # by their number in the Parquet format

_PLAIN, _DICTIONARIES = 0, (2, 8)  # encodings of pages
_UNKNOWN = 1  # size of an image in a row group that pyarrow has to decode
_HOP_BYTES = 4096  # mean value size above which a page is not read as a whole


@dataclass
class Places:
    """Chunks of a row group, and the chunk, position and size of each row; size -1 for a null."""

    chunks: list[tuple[int, int, int, int]] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)  # int64 [n, 3]

    def add(self, offset: int, stored: int, size: int, codec: int) -> int:
        self.chunks.append((offset, stored, size, codec))
        return len(self.chunks) - 1


def locate(file: int, number: int, group: Group, column: int, max_level: int) -> Places:
    """Places of a row group's images; `max_level` is the definition level of a value."""
    count, chunk = group.rows, group.chunks[column]
    if chunk and chunk.type == BYTE_ARRAY and chunk.codec in _FORMAT_CODECS:
        try:
            places = _by_pages(file, count, chunk, _FORMAT_CODECS[chunk.codec], max_level)
            if sum(map(len, places.rows)) == count:
                return places
        except Exception:  # damaged headers can raise almost anything
            pass  # pyarrow supports more encodings, or reports what is wrong
    rows = np.zeros((count, 3), np.int64)
    rows[:, 1], rows[:, 2] = np.arange(count), _UNKNOWN
    return Places([(number, 0, 0, ROWS)], [rows])


def _by_pages(file: int, count: int, chunk: Chunk, codec: int, max_level: int) -> Places:
    places, dictionary = Places(), np.empty((0, 3), np.int64)
    for page in pages.walk(file, chunk.start, chunk.start + chunk.size):
        left = count - sum(map(len, places.rows))
        if page.values > (count if page.kind == pages.DICTIONARY else left):
            raise ValueError("pages have more values than their row group")
        body = _Body(file, page, codec)
        if page.kind == pages.DICTIONARY:
            found = values.strings(body.read, 0, page.values, page.size)
            dictionary = body.place(places, *found)
            continue
        length = page.levels if page.kind == pages.DATA_V2 else None
        valid, at = values.present(body.read, 0, max_level, page.values, length)
        rows = np.full((page.values, 3), -1, np.int64)
        if page.encoding == _PLAIN:
            found = values.strings(body.read, at, int(valid.sum()), page.size)
            rows[valid] = body.place(places, *found)
        elif page.encoding in _DICTIONARIES:
            data = body.read(at, page.size - at)
            width = data[0] if data else 0
            rows[valid] = dictionary[values.numbers(data[1:], width, int(valid.sum()))]
        else:
            raise ValueError(f"encoding {page.encoding}")
        places.rows.append(rows)
    return places


class _Body:
    """The decompressed body of a page, read as a whole, or in parts if it is not compressed."""

    def __init__(self, file: int, page: Page, codec: int) -> None:
        self._file, self._page = file, page
        self._codec = codec if page.compressed else STORED
        if self._codec == STORED and page.size != page.stored:
            raise ValueError("an uncompressed page has two different sizes")
        self._hops = self._codec == STORED and page.size > _HOP_BYTES * page.values
        stored = b"" if self._hops else _pread(file, page.stored, page.offset)
        self._stored = stored[page.levels :]
        self._data = stored
        if self._codec != STORED:
            import pyarrow

            plain = page.size - page.levels
            body = pyarrow.Codec(CODECS[self._codec]).decompress(self._stored, plain, asbytes=True)
            self._data = stored[: page.levels] + body

    def read(self, at: int, size: int) -> bytes:
        if self._hops:
            return _pread(self._file, size, self._page.offset + at)
        return self._data[at : at + size]

    def place(self, places: Places, positions: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Add the page's chunks; return int64 [n, 3]: chunk, position in it, and size."""
        page, levels = self._page, self._page.levels
        rows = np.empty((len(positions), 3), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2] = len(places.chunks), positions, sizes
        cuts = None
        if CODECS[self._codec] == "snappy":
            cuts = snappy.fragments(self._stored, page.size - levels)
        if self._codec == STORED:
            places.add(page.offset, page.stored, page.size, STORED)
            return rows
        rows[:, 1] -= levels
        if cuts is None:
            places.add(page.offset + levels, page.stored - levels, page.size - levels, self._codec)
        else:
            for i in range(len(cuts) - 1):
                size = min(snappy.FRAGMENT, page.size - levels - i * snappy.FRAGMENT)
                offset = page.offset + levels + int(cuts[i])
                places.add(offset, int(cuts[i + 1] - cuts[i]), size, FRAGMENT)
            rows[:, 0] += rows[:, 1] // snappy.FRAGMENT
            rows[:, 1] %= snappy.FRAGMENT
        return rows


def _pread(file: int, size: int, offset: int) -> bytes:
    data = os.pread(file, size, offset)
    while len(data) < size:
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise ValueError("the file ends before the end of its pages")
        data += more
    return data
