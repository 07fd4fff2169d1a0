"""Column files: named numpy arrays in one memory-mapped file with a JSON header.

Opening takes constant time, pages are shared by all processes of a machine, and nothing is ever
unpickled. Layout, little-endian: 8 bytes of magic, the header's length (u4) and CRC-32 (u4), the
header, then each column at a multiple of 64 bytes. The header holds the total size of the columns,
so that truncation is detected without reading them.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import atomic_path

_MAGIC = b"\x89MILL1\r\n"
_START = struct.Struct("<8sII")
_ALIGN = 64
_CHUNK = 1 << 26  # items written at a time, so that a column may itself be a memory map


@dataclass(frozen=True)
class Columns:
    """An open column file: its metadata and its read-only columns."""

    meta: dict[str, Any]
    columns: dict[str, np.ndarray]
    places: dict[str, int] = field(default_factory=dict)  # bytes from the file's start to a column

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


@dataclass(frozen=True)
class Parts:
    """A one-dimensional column written piece by piece, so that it need not fit into memory."""

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
    layout, offset = {}, 0
    for name, column in columns.items():
        layout[name] = {"dtype": column.dtype.str, "shape": column.shape, "offset": offset}
        offset += -(-column.nbytes // _ALIGN) * _ALIGN
    header = json.dumps({"kind": kind, "meta": meta, "columns": layout, "bytes": offset}).encode()
    temporary = f"{path.name}.{secrets.token_hex(4)}.tmp"
    with atomic_path(path, temporary, durable=True) as partial, open(partial, "wb") as file:
        file.write(_START.pack(_MAGIC, len(header), zlib.crc32(header)) + header)
        file.write(bytes(_body_start(len(header)) - file.tell()))
        for column in columns.values():
            _write_column(file, column)


def read(path: Path, kind: str) -> Columns:
    """Map a column file; a MillError if it is missing, truncated or of another kind."""
    problem = "it is not a file of this program"
    try:
        with open(path, "rb") as file:
            magic, length, crc = _START.unpack(file.read(_START.size))
            header = file.read(length) if magic == _MAGIC else b""
            if magic == _MAGIC and zlib.crc32(header) == crc:
                content = json.loads(header)
                start = _body_start(length)
                if content["kind"] != kind:
                    problem = f"it holds {content['kind']!r}, not {kind!r}"
                elif os.fstat(file.fileno()).st_size != start + content["bytes"]:
                    problem = "it is truncated"
                else:
                    body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    layout = content["columns"]
                    places = {name: start + at["offset"] for name, at in layout.items()}
                    return Columns(content["meta"], _map(body, start, layout), places)
    except OSError as error:
        problem = error.strerror or str(error)
    except (struct.error, ValueError, KeyError, TypeError):
        pass
    raise MillError(f"cannot use {path}: {problem}; make it again")


def find(path: Path, kind: str) -> Columns | None:
    """Like `read`, but None for a file that is missing or unusable, as caches need it."""
    try:
        return read(path, kind)
    except MillError:
        return None


def join(items: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """n byte strings as two columns: all bytes, and the n + 1 offsets where items start."""
    starts = np.zeros(len(items) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, items), np.int64, len(items)), out=starts[1:])
    return np.frombuffer(b"".join(items), np.uint8), starts


def item(data: np.ndarray, starts: np.ndarray, index: int) -> bytes:
    """One of the byte strings of `join`."""
    return data[starts[index] : starts[index + 1]].tobytes()


def _body_start(header_length: int) -> int:
    return -(-(_START.size + header_length) // _ALIGN) * _ALIGN


def _write_column(file: Any, column: np.ndarray | Parts) -> None:
    written = 0
    for piece in column.pieces if isinstance(column, Parts) else [column]:
        flat = piece.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            file.write(np.ascontiguousarray(flat[start : start + _CHUNK]).data)
        written += piece.nbytes
    if written != column.nbytes:
        raise OSError("a piece of it was changed at the same time")
    file.write(bytes(-column.nbytes % _ALIGN))


def _map(body: mmap.mmap, start: int, layout: dict[str, Any]) -> dict[str, np.ndarray]:
    columns = {}
    for name, at in layout.items():
        dtype, shape = np.dtype(at["dtype"]), tuple(at["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        offset = start + at["offset"]
        flat = np.frombuffer(body if count else b"", dtype, count, offset if count else 0)
        columns[name] = flat.reshape(shape)
    return columns
