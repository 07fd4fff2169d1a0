"""A zip of images as a source: read in place, with class folders as labels.

The central directory is listed once and cached. Members are stored or deflated, as common
programs write them; each is checked against the CRC-32 in the directory when it is read.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.files import columns, stamps
from patchmill.loaders.files.open_files import OpenFiles
from patchmill.loaders.sources.archives.listing import Listing, is_image, open_listing
from patchmill.loaders.sources.folder_listing import EXTENSIONS
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.reopened import Reopened
from patchmill.loaders.sources.shards.tar import read_at

KIND = "zip index 1"
_DTYPES = {
    "offsets": "<u8",
    "stored": "<u4",
    "sizes": "<u4",
    "checksums": "<u4",
    "deflated": "|b1",
}
_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, lengths of its name and extra field
_MAGIC = b"PK\x03\x04"
_SLACK = 256  # bytes read for the header in front of a member
_RACY_NS = 2_000_000_000
_MAX_BYTES = 1 << 30  # of an image
_ENCRYPTED = 1  # bit of a member's flags
_CLEAR = (zipfile.BadZipFile, NotImplementedError)  # errors with an informative message
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 99: "AES"}


_VALUES: dict[str, Callable[[zipfile.ZipInfo], int]] = {  # of those columns
    "offsets": lambda member: member.header_offset,
    "stored": lambda member: member.compress_size,
    "sizes": lambda member: member.file_size,
    "checksums": lambda member: member.CRC,
    "deflated": lambda member: member.compress_type != zipfile.ZIP_STORED,
}


def split_path(data: str | Path) -> tuple[str, str] | None:
    """Zip and folder in it, from `photos.zip` or `photos.zip/train`; None for other data."""
    text = os.path.expanduser(str(data))
    if text.lower().endswith(".zip") and not os.path.isdir(text):
        return text, ""
    head, ending, inner = text.partition(".zip/")
    zip_path = head + ending[:-1]
    return (zip_path, inner.strip("/")) if ending and os.path.isfile(zip_path) else None


class Zip(Reopened, NumberedSource):
    """All images of a zip, or of a folder in it, in the byte order of their paths."""

    def __init__(self, data: str | Path) -> None:
        self.name = str(data)
        path, folder = split_path(data) or (str(data), "")
        self._path = os.path.realpath(path)
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise MillError(f"cannot open {self.name}: {error.strerror}") from None
        self._state = [status.st_size, status.st_mtime_ns]
        index = open_listing(
            self.name,
            KIND,
            f"{self._path}\0{folder}",
            self._state,
            lambda: _list(self.name, self._path, folder),
            sure=time.time_ns() - status.st_mtime_ns > _RACY_NS,
            dtypes=_DTYPES,
        )
        self._names, self._starts = index["names"], index["starts"]
        self._offsets, self._stored = index["offsets"], index["stored"]
        self._sizes, self._checksums = index["sizes"], index["checksums"]
        self._deflated = index["deflated"]
        self.fingerprint: str = index.meta["fingerprint"]
        self.classes: list[str] = index.meta["classes"]
        self.root: str = index.meta["root"]  # `data/train/`: the folder above the class folders
        self.labels: np.ndarray | None = index.columns.get("labels")
        self._open_files = OpenFiles(lambda _: os.fsencode(self._path), self._check_unchanged)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> bytes:
        offset, stored = int(self._offsets[index]), int(self._stored[index])
        file = self._open_files.get(0).number
        data = read_at(file, _SLACK + stored, offset)
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise OSError(f"there is no member at byte {offset}: the zip is damaged")
        _, name_length, extra_length = _HEADER.unpack_from(data)
        start = _HEADER.size + name_length + extra_length
        if len(data) < start + stored:
            data += read_at(file, start + stored - len(data), offset + len(data))
        content = data[start : start + stored]
        if len(content) < stored:
            raise OSError(f"the zip ends {stored - len(content)} bytes before the image does")
        return self._unpacked(index, content)

    def stamp(self, index: int) -> int:
        return stamps.of_numbers(int(self._checksums[index]), int(self._sizes[index]))

    def where(self, index: int) -> str:
        return f"{self._path}: {os.fsdecode(columns.item(self._names, self._starts, index))}"

    def prefetch(self, ids: np.ndarray) -> None:
        """Advise the kernel to read these samples ahead; does not wait."""
        if not hasattr(os, "posix_fadvise"):
            return
        with contextlib.suppress(OSError):  # reading them will raise the error
            file = self._open_files.get(0).number
            for index in np.sort(ids).tolist():
                offset, size = int(self._offsets[index]), int(self._stored[index]) + _SLACK
                os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)

    def _unpacked(self, index: int, content: bytes) -> bytes:
        size, data = int(self._sizes[index]), content
        if self._deflated[index]:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error as error:
                raise OSError(f"it cannot be decompressed: {error}") from None
            if len(data) != size:
                more = " or more" * (len(data) > size)
                raise OSError(f"it decompresses to {len(data)}{more} bytes, not to {size}")
        actual, expected = zlib.crc32(data), int(self._checksums[index])
        if actual != expected:
            raise OSError(
                f"its checksum {actual:08x} differs from {expected:08x}: the zip was changed or "
                "damaged"
            )
        return data

    def _check_unchanged(self, _: int, status: os.stat_result) -> None:
        if [status.st_size, status.st_mtime_ns] != self._state:
            raise OSError("the zip was changed since it was listed")


def _list(name: str, path: str, folder: str) -> Listing:
    with track(f"listing {name}") as advance:
        try:
            with zipfile.ZipFile(path) as archive:
                members = {member.filename: member for member in archive.infolist()}
        except OSError as error:
            raise MillError(f"cannot read {name}: {error.strerror or error}") from None
        except Exception as error:  # zipfile raises almost anything for a damaged directory
            problem = str(error).rstrip(".") if isinstance(error, _CLEAR) else "it is damaged"
            raise MillError(
                f"{name} is not a complete zip: {problem}; fetch or pack it again"
            ) from None
        advance(len(members))
    inside = f"{folder}/" if folder else ""
    images = [
        member
        for member in members.values()
        if member.filename.removeprefix("./").startswith(inside)
        and not member.filename.endswith("/")
        and is_image(_encoded(member))
        and "__MACOSX" not in member.filename
    ]
    if not images:
        where = f"the folder {folder!r} of " if folder else ""
        raise MillError(
            f"there are no images in {where}{name}: looked for files ending in "
            f"{', '.join(EXTENSIONS)}"
        )
    _check(name, images)
    return Listing(
        [_encoded(member) for member in images],
        {
            name: np.array([value(member) for member in images], _DTYPES[name])
            for name, value in _VALUES.items()
        },
    )


def _encoded(member: zipfile.ZipInfo) -> bytes:
    return member.filename.encode("utf-8", "surrogateescape")


def _check(name: str, images: list[zipfile.ZipInfo]) -> None:
    """Raise a MillError for members that cannot be read."""
    encrypted = [member for member in images if member.flag_bits & _ENCRYPTED]
    if encrypted:
        raise MillError(
            f"{len(encrypted)} of {len(images)} images in {name} are encrypted, first "
            f"{encrypted[0].filename!r}: unpack it with its password, and name the folder"
        )
    readable = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    other = [member for member in images if member.compress_type not in readable]
    if other:
        method = _METHODS.get(other[0].compress_type, f"method {other[0].compress_type}")
        raise MillError(
            f"{len(other)} of {len(images)} images in {name} are compressed with {method}, which "
            "cannot be read in place: unpack it, or pack it again with deflate or without "
            "compression (zip -0)"
        )
    large = [m for m in images if max(m.file_size, m.compress_size) > _MAX_BYTES]
    if large:
        raise MillError(f"{large[0].filename!r} in {name} has more than 1 GiB: it is not an image")
    if any(not 0 <= member.header_offset < 1 << 63 for member in images):
        raise MillError(f"the directory of {name} is damaged: fetch or pack it again")
