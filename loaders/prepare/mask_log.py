"""A rank's masks while they are made: one appended after the other, each with its checksums.

The first line says what is being made. What a crash has cut off, or left unwritten, ends the log: a
later run goes on from there. A lock on the file keeps a second process away.
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

from patchmill.loaders.common import files
from patchmill.loaders.copypaste.mask_file import MaskRow

_HEAD = struct.Struct("<BHHffIII")  # a row up to its checksum, then the bytes of why and PNG
_SUM = struct.Struct("<I")  # CRC-32 of head and why; the PNG has its own
_DONE = _HEAD.pack(255, 0, 0, 0, 0, 0, 0, 0) + _SUM.pack(0)
_GATHERED = 1 << 18  # bytes that are written at a time
_SYNCED = 1 << 26


def identity(path: Path) -> dict[str, Any] | None:
    """What is being made; None where there is no log, or none that got as far."""
    try:
        with open(path, "rb") as file:
            return _identity(file)
    except FileNotFoundError:
        return None


def done(path: Path) -> bool:
    """Whether nothing is left to be done for this log."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_DONE), io.SEEK_END)
            return file.read() == _DONE
    except OSError:  # there is none, or one that is shorter
        return False


def rows(path: Path) -> Iterator[MaskRow]:
    """All that are whole, in order."""
    with open(path, "rb") as file:
        if _identity(file) is not None:
            yield from _rows(file)


class MaskLog:
    """An open log, which this process alone may write."""

    def __init__(self, path: Path, known: Mapping[str, Any]) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._waiting = bytearray()
        self._unsynced = 0
        try:
            files.hold(self._file, path)
            self.count = self.missing = 0
            self.done = False
            with open(path, "rb") as file:
                size = file.tell() if _identity(file) is None else self._go_through(file)
            os.ftruncate(self._file, size)
            os.lseek(self._file, size, os.SEEK_SET)
            if not size:
                self._write(json.dumps(dict(known)).encode() + b"\n")
        except BaseException:
            os.close(self._file)
            raise

    def append(self, row: MaskRow) -> None:
        why = row.why.encode()
        head = _HEAD.pack(*row[:6], len(why), len(row.png)) + why
        self._waiting += head + _SUM.pack(zlib.crc32(head)) + row.png
        self.count += 1
        if len(self._waiting) >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Hand what was gathered to the system, and now and then to the disk."""
        self._write(self._waiting)
        self._unsynced += len(self._waiting)
        self._waiting = bytearray()
        if self._unsynced >= _SYNCED:
            self.sync()

    def sync(self) -> None:
        os.fsync(self._file)
        self._unsynced = 0

    def finish(self) -> None:
        """Nothing more will be appended."""
        if not self.done:
            self._waiting += _DONE
            self.flush()
            self.sync()
            self.done = True

    def close(self) -> None:
        os.close(self._file)

    def _go_through(self, file: BinaryIO) -> int:
        """Count the rows; where the last whole one ends."""
        end = file.tell()
        for row in _rows(file):
            self.count += 1
            self.missing += not row.png
            end = file.tell()
        file.seek(end)
        self.done = file.read() == _DONE
        return end + self.done * len(_DONE)

    def _write(self, data: bytes | bytearray) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]


def _identity(file: BinaryIO) -> dict[str, Any] | None:
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
        *known, why_size, png_size = _HEAD.unpack(head)
        rest = file.read(why_size + _SUM.size)
        why, stored = rest[:why_size], rest[why_size:]
        if stored != _SUM.pack(zlib.crc32(why, zlib.crc32(head))):
            return
        png = file.read(png_size)
        if len(png) < png_size or zlib.crc32(png) != known[5]:
            return
        yield MaskRow._make([*known, why.decode(), png])
