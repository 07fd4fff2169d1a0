"""The footer of a Parquet file: the checked places of the column chunks of its row groups.

pyarrow's own view of a column chunk crashes the process if its statistics do not fit the schema,
and trusts any offset and any number of values.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from patchmill.loaders.sources.parquet import thrift
from patchmill.loaders.sources.parquet.thrift import Fields, Shape

BYTE_ARRAY = 6  # a physical type

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # the footer's length and the magic
_MOST_BYTES = 64 << 20  # of a footer
_MOST_ROWS = 1 << 20  # in a file of any size: nulls and repeated images take next to no bytes ...
_ROWS_PER_BYTE = 8  # ... and beyond these, a row takes at least one bit


class Chunk(NamedTuple):
    """The values of a column in a row group."""

    type: int
    codec: int
    values: int  # including nulls
    start: int  # offset of its first page
    size: int  # bytes in the file


class Group(NamedTuple):
    """A row group."""

    rows: int
    chunks: list[Chunk | None]  # of the leaves of the schema; None for one that is encrypted


def read(path: str) -> list[Group]:
    """The row groups of a file; ValueError if the footer is damaged, OSError without a file."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(file).st_size
        tail = os.pread(file, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
        if tail[4:] != _MAGIC:
            raise ValueError("it does not end like a Parquet file")
        length = int.from_bytes(tail[:4], "little")
        start = size - _TAIL_BYTES - length
        if start < len(_MAGIC) or length > _MOST_BYTES:
            raise ValueError(f"its footer cannot have {length:,} bytes")
        data = os.pread(file, length, start)
    finally:
        os.close(file)
    try:
        groups: list[Group] = thrift.struct(data, 0, _FOOTER)[0][_GROUPS]
    except IndexError:
        raise ValueError("its footer is cut off") from None
    except KeyError:
        raise ValueError("its footer has no row groups") from None
    _check(groups, size, start)
    return groups


def _check(groups: list[Group], size: int, end: int) -> None:
    """Raise a ValueError for chunks that overlap or lie outside the file, and for too many rows.

    Chunks without values have no place: pyarrow writes the offset 0 for them.
    """
    if sum(group.rows for group in groups) > _MOST_ROWS + _ROWS_PER_BYTE * size:
        raise ValueError("its footer claims more rows than a file of its size can hold")
    last = len(_MAGIC)
    chunks = (chunk for group in groups for chunk in group.chunks if chunk and chunk.values)
    for start, stored in sorted((chunk.start, chunk.size) for chunk in chunks):
        if start < last:
            raise ValueError(f"its column at byte {start} overlaps another")
        last = start + stored
    if last > end:
        raise ValueError("a column extends into its footer")


def _chunk(fields: Fields) -> Chunk | None:
    if _METADATA not in fields:
        return None
    inner = fields[_METADATA]
    try:
        values, size, start = inner[_VALUES], inner[_SIZE], inner[_DATA_PAGE]
        if 0 < inner.get(_DICTIONARY_PAGE, 0) < start:
            start = inner[_DICTIONARY_PAGE]
        chunk = Chunk(inner[_TYPE], inner[_CODEC], values, start, size)
    except KeyError as error:
        raise ValueError(f"a column in its footer has no field {error}") from None
    if values < 0 or size < 0 or start < 0:
        raise ValueError("a column in its footer has a negative size or place")
    return chunk


def _group(fields: Fields) -> Group:
    rows, chunks = fields.get(_ROWS, -1), fields.get(_COLUMNS)
    if rows < 0 or chunks is None:
        raise ValueError("a row group in its footer has no rows or columns")
    return Group(rows, chunks)


_GROUPS, _COLUMNS, _ROWS, _METADATA = 4, 1, 3, 3
_TYPE, _CODEC, _VALUES, _SIZE, _DATA_PAGE, _DICTIONARY_PAGE = 1, 4, 5, 7, 9, 11
_KEPT = Shape(dict.fromkeys((_TYPE, _CODEC, _VALUES, _SIZE, _DATA_PAGE, _DICTIONARY_PAGE)))
_FOOTER = Shape(
    {_GROUPS: Shape({_COLUMNS: Shape({_METADATA: _KEPT}, _chunk), _ROWS: None}, _group)}
)
