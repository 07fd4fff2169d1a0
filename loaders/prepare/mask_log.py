"""The log of a rank's masks while they are made: rows with checksums, appended one by one.

The first line holds the identity of the output. A row that a crash truncated ends the log: the next
run continues from there. A lock on the file keeps other processes away.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from patchmill.loaders.copypaste.mask_file import MaskRow
from patchmill.loaders.files import writing

_HEAD = struct.Struct("<BHHffIII")  # a row up to its checksum, then the sizes of why and PNG
_SUM = struct.Struct("<I")  # CRC-32 of head and why; the PNG has its own
_DONE = _HEAD.pack(255, 0, 0, 0, 0, 0, 0, 0) + _SUM.pack(0)
_WRITE_BYTES = 1 << 18  # buffered before a write
_SYNC_BYTES = 1 << 26  # written between calls of fsync


def read_identity(path: Path) -> dict[str, Any] | None:
    """Read the identity in the first line; None if there is no log, or no complete first line."""
    try:
        with open(path, "rb") as file:
            return _read_identity(file)
    except FileNotFoundError:
        return None


def is_done(path: Path) -> bool:
    """True if the log ends with the mark of `mark_done`."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_DONE), io.SEEK_END)
            return file.read() == _DONE
    except OSError:  # no file, or one shorter than the mark
        return False


def is_whole(path: Path, count: int) -> bool:
    """True if the log has `count` complete rows; reads all of it."""
    try:
        return sum(1 for _ in rows(path)) == count
    except OSError:
        return False


def rows(path: Path) -> Iterator[MaskRow]:
    """All complete rows, in order."""
    with open(path, "rb") as file:
        if _read_identity(file) is not None:
            yield from _rows(file)


class MaskLog:
    """An open log, locked by this process."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._buffer = bytearray()
        self._unsynced = 0  # bytes written since the last fsync
        try:
            writing.lock_output(self._file, path)
            self.count = self.missing = 0
            self.done = False
            with open(path, "rb") as file:
                size = file.tell() if _read_identity(file) is None else self._count_rows(file)
            os.ftruncate(self._file, size)
            os.lseek(self._file, size, os.SEEK_SET)
            if not size:
                self._buffer += json.dumps(dict(identity)).encode() + b"\n"
                self.flush()
        except BaseException:
            os.close(self._file)
            raise

    def append(self, row: MaskRow) -> None:
        why = row.why.encode()
        head = _HEAD.pack(*row[:6], len(why), len(row.png)) + why
        self._buffer += head + _SUM.pack(zlib.crc32(head)) + row.png
        self.count += 1
        if len(self._buffer) >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the buffer, and sync it to disk once in a while."""
        while self._buffer:  # bytes are removed once written, even if the next write fails
            written = os.write(self._file, self._buffer)
            del self._buffer[:written]
            self._unsynced += written
        if self._unsynced >= _SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file)
        self._unsynced = 0

    def mark_done(self) -> None:
        if not self.done:
            self._buffer += _DONE
            self.flush()
            self.sync()
            self.done = True

    def close(self) -> None:
        os.close(self._file)

    def _count_rows(self, file: BinaryIO) -> int:
        """Count the complete rows; return the offset after them and the mark, if there is one."""
        end = file.tell()
        for row in _rows(file):
            self.count += 1
            self.missing += not row.png
            end = file.tell()
        file.seek(end)
        self.done = file.read() == _DONE
        return end + self.done * len(_DONE)


def _read_identity(file: BinaryIO) -> dict[str, Any] | None:
    line = file.readline()
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    finally:
        if not line.endswith(b"\n"):
            file.seek(0, io.SEEK_SET)


def _rows(file: BinaryIO) -> Iterator[MaskRow]:
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        if head + bytes(_SUM.size) == _DONE:
            return
        *fields, why_size, png_size = _HEAD.unpack(head)
        rest = file.read(why_size + _SUM.size)
        why, stored = rest[:why_size], rest[why_size:]
        if stored != _SUM.pack(zlib.crc32(why, zlib.crc32(head))):
            return
        png = file.read(png_size)
        if len(png) < png_size or zlib.crc32(png) != fields[5]:
            return
        yield MaskRow._make([*fields, why.decode(), png])
