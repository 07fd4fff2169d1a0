"""Columns of a file, read and verified as a whole, or piece by piece on first use.

Nothing is memory-mapped: reading beyond the end of a truncated file raises an OSError, while a map
would kill the process.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PIECE_BYTES = 1 << 20  # under one checksum


class Place(NamedTuple):
    """The location and layout of a column in a file."""

    name: str
    start: int  # bytes from the file's start
    dtype: np.dtype
    shape: tuple[int, ...]
    checksums: np.ndarray | None  # CRC-32 of each piece; None: the file has none

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def pieces(self) -> int:
        return -(-self.nbytes // PIECE_BYTES)


class ColumnFile:
    """An open file, closed with the last reference to this object; any thread may read."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at exit, `os` is gone
        if self.number >= 0:
            close(self.number)

    def read(self, count: int, offset: int) -> bytes:
        """Read exactly this many bytes; OSError if the file ends before."""
        data = os.pread(self.number, count, offset)
        while len(data) < count:
            more = os.pread(self.number, count - len(data), offset + len(data))
            if not more:
                raise OSError("it was truncated")
            data += more
        return data

    def read_piece(self, place: Place, piece: int) -> bytes:
        """Read a piece of a column; OSError if it differs from its checksum."""
        first = piece * PIECE_BYTES
        data = self.read(min(PIECE_BYTES, place.nbytes - first), place.start + first)
        if place.checksums is not None and zlib.crc32(data) != place.checksums[piece]:
            raise OSError(f"its column {place.name!r} differs from its checksum")
        return data


def read_whole(file: ColumnFile, place: Place) -> np.ndarray:
    """Read a column into memory, read-only; OSError if it is damaged."""
    column = np.empty(place.shape, place.dtype)
    memory = column.reshape(-1).view(np.uint8)
    for piece in range(place.pieces):
        _put(memory, piece, file.read_piece(place, piece))
    column.flags.writeable = False
    return column


class Pieces:
    """A large column whose pieces are read into memory, and verified, on first use.

    Indexed by a non-negative integer, or by an array of them. A damaged piece is taken from the
    column that `fallback` returns, the same column from elsewhere; without it, it is an OSError.
    """

    fallback: Callable[[str, OSError], np.ndarray | Pieces] | None = None

    def __init__(self, file: ColumnFile, place: Place) -> None:
        self._file, self._place = file, place
        self.dtype, self.shape = place.dtype, place.shape
        self._items = np.empty(place.shape, place.dtype)  # takes memory as pieces are read
        self._memory = self._items.view(np.uint8)
        self._items.flags.writeable = False
        self._flags = bytearray(place.pieces)  # 1 for pieces that have been read
        self._loaded = np.frombuffer(self._flags, bool)
        self._in_piece = PIECE_BYTES // place.dtype.itemsize
        self._lock = threading.Lock()

    @staticmethod
    def can_hold(place: Place) -> bool:
        return len(place.shape) == 1 and PIECE_BYTES % place.dtype.itemsize == 0

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        pieces = index // self._in_piece
        if isinstance(pieces, int):
            if not self._flags[pieces]:
                self._read(pieces)
        elif not self._loaded[pieces].all():
            for piece in np.unique(pieces).tolist():
                self._read(piece)
        return self._items[index]

    def whole(self) -> np.ndarray:
        """The whole column."""
        for piece in np.flatnonzero(~self._loaded).tolist():
            self._read(piece)
        return self._items

    def _read(self, piece: int) -> None:
        with self._lock:
            if not self._flags[piece]:
                _put(self._memory, piece, self._content(piece))
                self._flags[piece] = 1

    def _content(self, piece: int) -> bytes:
        if self.fallback is None:
            return _read_named(self._file, self._place, piece)
        try:
            return self._file.read_piece(self._place, piece)
        except OSError as error:
            column = self.fallback(self._place.name, error)
            first = piece * self._in_piece
            return column[np.arange(first, min(first + self._in_piece, len(self)))].tobytes()


class Stored:
    """A column of bytes that stays in the file, and whose pieces are verified on first use."""

    def __init__(self, file: ColumnFile, place: Place) -> None:
        self._file, self._place = file, place
        self._checked = np.zeros(place.pieces, bool)

    def __len__(self) -> int:
        return self._place.nbytes

    def __getitem__(self, span: slice) -> np.ndarray:
        """The bytes of a span; OSError if they are damaged."""
        start, stop, _ = span.indices(len(self))
        for piece in range(start // PIECE_BYTES, -(-stop // PIECE_BYTES)):
            if not self._checked[piece]:
                _read_named(self._file, self._place, piece)
                self._checked[piece] = True
        data = self._file.read(max(stop - start, 0), self._place.start + start)
        return np.frombuffer(data, np.uint8)


def whole(column: np.ndarray | Pieces) -> np.ndarray:
    """The whole column as an array."""
    return column.whole() if isinstance(column, Pieces) else column


def _read_named(file: ColumnFile, place: Place, piece: int) -> bytes:
    """Read a piece of a column; errors name the file."""
    try:
        return file.read_piece(place, piece)
    except OSError as error:
        problem = error.strerror or str(error)
        raise OSError(
            f"{file.path} cannot be used: {problem}; delete it, or make it again"
        ) from None


def _put(memory: np.ndarray, piece: int, data: bytes) -> None:
    first = piece * PIECE_BYTES
    memory[first : first + len(data)] = np.frombuffer(data, np.uint8)
