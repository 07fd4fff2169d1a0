"""The checkpoint file format: the output of torch.save, followed by a checksum of all of it.

torch.save writes a zip archive. The checksum is the archive's comment, so that any torch.load reads
the file. Older checkpoints have none: the checksums of the archive's members are compared instead.
"""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from patchmill.loaders.files.regular_files import open_regular
from patchmill.loaders.files.writing import reason

MARK = b"patchmill crc32 "  # then the checksum, as eight hexadecimal digits
COMMENT = len(MARK) + 8
FOLDER = 0x10  # of a member's attributes
NO_COMMENT = bytes(2)  # length of the comment, at the end of the archive that torch writes
CHUNK = 4 * 2**20


class Unreadable(Exception):
    """A checkpoint that cannot be read; its message follows the path: "is damaged (...)"."""


def write(content: Any, file: BinaryIO) -> None:
    """Write a checkpoint to an empty file."""
    summed = _Summed(file)
    try:
        torch.save(content, cast(BinaryIO, summed))
    except Exception:
        if summed.error:  # torch may have replaced it with an error of its own
            raise summed.error from None
        raise
    file.seek(-len(NO_COMMENT), os.SEEK_END)
    file.write(COMMENT.to_bytes(2, "little") + MARK + b"%08x" % summed.sum)


def read(path: Path, map_location: str | torch.device = "cpu") -> Any:
    """Read a checkpoint without running any code in it; raise Unreadable if that fails."""
    try:
        handle, status = open_regular(path)
        with os.fdopen(handle, "rb") as file:
            _check(file, status.st_size)
        return torch.load(path, map_location=map_location, weights_only=True)
    except Unreadable:
        raise
    except pickle.UnpicklingError:
        raise Unreadable(
            "is not a checkpoint (it holds objects that could run code, which are not loaded)"
        ) from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({reason(error)})") from None
    except Exception as error:  # torch and zipfile raise many types
        raise Unreadable(f"is damaged ({type(error).__name__} while reading it)") from None


class _Summed:
    """The file interface that torch.save needs, with a running checksum of what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sum = zlib.crc32(data, self.sum)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _check(file: BinaryIO, size: int) -> None:
    """Compare the checksums, which torch.load does not; raise Unreadable if they differ."""
    body = size - len(NO_COMMENT) - COMMENT
    comment = b""
    if body > 0:
        file.seek(body + len(NO_COMMENT))
        comment = file.read(COMMENT)
    if comment.startswith(MARK):
        if comment != MARK + b"%08x" % zlib.crc32(NO_COMMENT, _sum(file, body)):
            raise Unreadable("is damaged (its checksum differs)")
        members = _members(file)
    else:
        members = _members(file)
        if members.testzip() is not None:
            raise Unreadable("is damaged (a checksum in it differs)")
        if any(info.external_attr & FOLDER for info in members.infolist()):
            # torch would read none of its bytes and return uninitialised memory
            raise Unreadable("is damaged (a tensor in it is marked as a folder)")
    infos = members.infolist()
    if any(info.compress_type for info in infos) or sum(info.file_size for info in infos) > size:
        raise Unreadable("is not a checkpoint (its contents are larger than the file)")


def _members(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise Unreadable("is damaged, or not a checkpoint") from None


def _sum(file: BinaryIO, size: int) -> int:
    """Compute the checksum of the first `size` bytes."""
    file.seek(0)
    total = 0
    while size:
        data = file.read(min(CHUNK, size))
        if not data:
            raise Unreadable("is damaged (it has become shorter)")
        total, size = zlib.crc32(data, total), size - len(data)
    return total
