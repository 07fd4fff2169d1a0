"""Column files: named numpy arrays in one file with a JSON header, all protected by checksums.

A column is read into memory and verified when the file is opened, or piece by piece on first use
(`column_pieces`). Nothing is memory-mapped, so that a file which is later truncated or changed
causes an error at worst, and nothing is ever unpickled.

Layout, little-endian: 8 bytes of magic, the header's length (u4) and CRC-32 (u4), the header, then
each column at a multiple of 64 bytes. The header holds the total size of the columns, so that
truncation is detected without reading them, and the CRC-32 of each 1 MiB of each column. Files of
the first version, which have no column checksums, can still be read.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.column_pieces import (
    PIECE_BYTES,
    ColumnFile,
    Pieces,
    Place,
    Stored,
    read_whole,
)
from patchmill.loaders.files.writing import atomic_path

_MAGIC, _UNCHECKED_MAGIC = b"\x89MILL2\r\n", b"\x89MILL1\r\n"
_START = struct.Struct("<8sII")
_ALIGN = 64
_CHUNK = 1 << 26  # items written at a time, so that a column may itself be a memory map
_MAX_HEADER_BYTES = 1 << 28
_LARGE_BYTES = 4 << 20  # of a column that is read piece by piece, if requested
_MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Columns:
    """A column file: its metadata and its read-only columns."""

    meta: dict[str, Any]
    columns: dict[str, Any]  # np.ndarray; Pieces or Stored, if requested
    places: dict[str, int] = field(default_factory=dict)  # bytes from the file's start to a column
    checked: bool = True  # False: the file has no column checksums

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]


@dataclass(frozen=True)
class Parts:
    """A one-dimensional column to write piece by piece, so that it need not fit into memory."""

    dtype: np.dtype
    count: int  # items, summed over the pieces
    pieces: Iterable[np.ndarray]

    @property
    def shape(self) -> tuple[int]:
        return (self.count,)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    def joined(self) -> np.ndarray:
        return np.concatenate([np.empty(0, self.dtype), *self.pieces])


def write(
    path: Path, kind: str, columns: Mapping[str, np.ndarray | Parts], meta: Mapping[str, Any]
) -> None:
    """Write the file atomically; raises OSError."""
    layout: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, column in columns.items():
        layout[name] = {"dtype": column.dtype.str, "shape": column.shape, "offset": offset}
        layout[name]["checksums"] = "0" * 8 * -(-column.nbytes // PIECE_BYTES)
        offset += -(-column.nbytes // _ALIGN) * _ALIGN
    content = {"kind": kind, "meta": meta, "columns": layout, "bytes": offset}
    temporary = f"{path.name}.{secrets.token_hex(4)}.tmp"
    with atomic_path(path, temporary, durable=True) as partial, open(partial, "wb") as file:
        _write_header(file, content)
        for name, column in columns.items():
            layout[name]["checksums"] = _write_column(file, column)
        file.seek(0)
        _write_header(file, content)  # of the same length


def read(
    path: Path,
    kind: str,
    *,
    only: Collection[str] | None = None,
    stored: Collection[str] = (),
    lazily: Collection[str] = (),
    valid: Callable[[Columns], bool] | None = None,
) -> Columns:
    """Read a column file; MillError if it is missing, truncated, damaged or of another kind.

    `only` names the columns to read, if not all. Those in `stored` become `Stored`, and large ones
    in `lazily` become `Pieces`: these raise an OSError on use if they are damaged. Checksums detect
    accidents; `valid` also validates the contents of a file that someone else may have written.
    """
    try:
        file = ColumnFile(path)
        start, content = _read_header(file, kind)
        checked = content["magic"] == _MAGIC
        layout = {
            name: _place(name, at, start, content["bytes"], checked)
            for name, at in content["columns"].items()
        }
        columns: dict[str, Any] = {}
        for name, place in layout.items():
            if only is not None and name not in only:
                continue
            if name in stored:
                columns[name] = Stored(file, place)
            elif name in lazily and place.nbytes > _LARGE_BYTES and Pieces.can_hold(place):
                columns[name] = Pieces(file, place)
            else:
                columns[name] = read_whole(file, place)
        places = {name: place.start for name, place in layout.items()}
        found = Columns(content["meta"], columns, places, checked)
        if valid is None or valid(found):
            return found
        problem = "it is damaged: its contents are inconsistent"
    except _Unusable as error:
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        problem = "its header is damaged"
    raise MillError(f"cannot use {path}: {problem}; make it again")


def find(path: Path, kind: str, **how: Any) -> Columns | None:
    """Like `read`, but None for a file that is missing, unusable or without checksums.

    Used for caches, which can be rebuilt.
    """
    try:
        found = read(path, kind, **how)
        return found if found.checked else None
    except MillError:
        return None


def join(items: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Store n byte strings as two columns: all bytes, and the n + 1 offsets where items start."""
    starts = np.zeros(len(items) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, items), np.int64, len(items)), out=starts[1:])
    return np.frombuffer(b"".join(items), np.uint8), starts


def item(data: np.ndarray | Stored, starts: np.ndarray, index: int) -> bytes:
    """One of the byte strings of `join`."""
    return data[starts[index] : starts[index + 1]].tobytes()


class _Unusable(Exception):
    pass


def _read_header(file: ColumnFile, kind: str) -> tuple[int, dict[str, Any]]:
    """Read the header, with the magic added; also return the offset where the columns start."""
    status = os.fstat(file.number)
    if not stat.S_ISREG(status.st_mode):
        raise _Unusable("it is not a regular file")
    foreign = _Unusable("it is not a file of this program")
    if status.st_size < _START.size:
        raise foreign
    magic, length, checksum = _START.unpack(file.read(_START.size, 0))
    if magic not in (_MAGIC, _UNCHECKED_MAGIC):
        raise foreign
    if _START.size + length > status.st_size or length > _MAX_HEADER_BYTES:
        raise _Unusable("it is truncated")
    header = file.read(length, _START.size)
    if zlib.crc32(header) != checksum:
        raise _Unusable("its header is damaged")
    content = json.loads(header) | {"magic": magic}
    if content["kind"] != kind:
        raise _Unusable(f"it holds {content['kind']!r}, not {kind!r}")
    start = _body_start(length)
    if status.st_size != start + content["bytes"]:
        raise _Unusable("it is truncated")
    if not isinstance(content["meta"], dict):
        raise TypeError
    return start, content


def _place(name: str, at: Mapping[str, Any], start: int, size: int, checked: bool) -> Place:
    """Parse the place of a column; ValueError or TypeError if it is invalid."""
    dtype, shape, offset = np.dtype(str(at["dtype"])), tuple(at["shape"]), at["offset"]
    numbers = [*shape, offset]
    if dtype.kind not in "buif" or len(shape) > _MAX_DIMENSIONS:
        raise ValueError
    if any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError
    place = Place(name, start + offset, dtype, shape, None)
    if offset + place.nbytes > size:
        raise ValueError
    if not checked:
        return place
    checksums = np.frombuffer(bytes.fromhex(at["checksums"]), ">u4")
    if len(checksums) != place.pieces:
        raise ValueError
    return place._replace(checksums=checksums)


def _body_start(header_length: int) -> int:
    return -(-(_START.size + header_length) // _ALIGN) * _ALIGN


def _write_header(file: Any, content: Mapping[str, Any]) -> None:
    header = json.dumps(content).encode()
    file.write(_START.pack(_MAGIC, len(header), zlib.crc32(header)) + header)
    file.write(bytes(_body_start(len(header)) - file.tell()))


def _write_column(file: Any, column: np.ndarray | Parts) -> str:
    """Write a column; return its checksums in hexadecimal."""
    written, checksums, left = 0, [0], PIECE_BYTES
    for piece in column.pieces if isinstance(column, Parts) else [column]:
        flat = piece.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            data = np.ascontiguousarray(flat[start : start + _CHUNK]).data.cast("B")
            file.write(data)
            while data:
                if not left:
                    checksums.append(0)
                    left = PIECE_BYTES
                checksums[-1] = zlib.crc32(data[:left], checksums[-1])
                data, left = data[left:], max(left - len(data), 0)
        written += piece.nbytes
    if written != column.nbytes:
        raise OSError("a piece of it changed during the write")
    file.write(bytes(-column.nbytes % _ALIGN))
    return "".join(f"{checksum:08x}" for checksum in checksums) if written else ""
