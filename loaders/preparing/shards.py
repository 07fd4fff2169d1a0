"""Writes WebDataset shards: each under another name, renamed when it is complete and on the disk.

A sample is `000000123.jpg` (or .png ...: what its bytes are), `000000123.cls` with the number of
its class where there is one, and `000000123.json` with the path that it came from. The number is
the sample's in the source. Headers hold neither times nor owners, so equal samples make equal
tars; the file's own time is made up of its checksum, so that an equal tar has an equal index too.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.preparing.tally import Ready
from patchmill.loaders.sources import shard_index
from patchmill.loaders.sources.tar import BLOCK

_END = bytes(2 * BLOCK)
_GATHERED = 1 << 20  # bytes that are written at a time
_MOST_PARTS = 512  # of one call; systems allow 1024
_TIME_S = 1_577_836_800  # 2020

_HEADER = bytearray(BLOCK)
_HEADER[100:156] = (
    b"0000644\0" + b"0000000\0" * 2 + b"0" * 11 + b"\0" + b"0" * 11 + b"\0" + b" " * 8
)
_HEADER[156:157], _HEADER[257:265] = b"0", b"ustar\00000"
_HEADER_SUM = sum(_HEADER)


class ShardOutput:
    """Appends samples to a shard, and begins the next one after each commit."""

    def __init__(self, folder: Path, prefix: str, size: int, classes: Sequence[str]) -> None:
        self._folder, self._prefix, self._size, self._classes = folder, prefix, size, classes
        self._number = 0  # of the shard in hand
        self._begin()

    def restore(self, finished: Sequence[dict[str, Any]]) -> int:
        """Go on behind these; how many of them are there."""
        there = 0
        for shard in finished:
            if shard and not self._is_there(shard):
                break
            there += 1
            self._number += bool(shard)
        for stale in self._folder.glob(f"{self._prefix}-*.tar.index.*.tmp"):
            stale.unlink()
        self._begin()
        return there

    def has_room(self, sample: Ready) -> bool:
        return not self._samples or self._bytes + _room(sample) <= self._size

    def add(self, sample: Ready) -> None:
        key = b"%09d." % sample.id
        image = sample.image
        at = self._put(key + image.ending.encode(), image.data)
        if sample.label is not None:
            self._put(key + b"cls", b"%d" % sample.label)
        self._put(key + b"json", _about(sample))
        self._samples.append(
            shard_index.Sample(
                name=key + image.ending.encode(),
                offset=at,
                size=len(image.data),
                label=sample.label,
                checksum=sample.checksum,
            )
        )
        if self._waiting_bytes >= _GATHERED:
            self._write()

    def commit(self) -> dict[str, Any]:
        """Give the shard its name; what the journal has to know of it."""
        if not self._samples:
            return {}
        self._gather(_END)
        file = self._write()
        os.fsync(file)
        os.utime(file, ns=(time := _TIME_S * 10**9 + self._checksum, time))
        self._file = None
        os.close(file)
        path = self._folder / self._name
        os.replace(self._part, path)
        contents = shard_index.Contents(self._samples, self._members)
        shard_index.write(path, contents, self._classes)
        about = {
            "name": self._name,
            "samples": len(self._samples),
            "bytes": self._bytes,
            "crc32": f"{self._checksum:08x}",
        }
        self._number += 1
        self._begin()
        return about

    def finish(self) -> None:
        """Nothing is left to do after the last commit."""

    def close(self) -> None:
        """Drop the shard in hand."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            with contextlib.suppress(OSError):
                self._part.unlink()

    def _begin(self) -> None:
        self._name = f"{self._prefix}-{self._number:06d}.tar"
        self._part = self._folder / f".{self._name}.part"
        self._file: int | None = None
        self._samples: list[shard_index.Sample] = []
        self._members = self._bytes = self._checksum = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def _is_there(self, shard: dict[str, Any]) -> bool:
        path = self._folder / shard["name"]
        try:
            whole = path.stat().st_size == shard["bytes"]
            return whole and os.path.exists(shard_index.beside(path))
        except OSError:
            return False

    def _put(self, name: bytes, content: bytes) -> int:
        """Append a member; where its content begins."""
        self._gather(_header(name, len(content)))
        at = self._bytes
        self._gather(content)
        if padding := -len(content) % BLOCK:
            self._gather(_END[:padding])
        self._members += 1
        return at

    def _gather(self, part: bytes) -> None:
        self._waiting.append(part)
        self._waiting_bytes += len(part)
        self._bytes += len(part)
        self._checksum = zlib.crc32(part, self._checksum)

    def _write(self) -> int:
        """Hand what was gathered to the system; the file that it went to."""
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._file = os.open(self._part, flags, 0o666)
        for first in range(0, len(self._waiting), _MOST_PARTS):
            _write_all(self._file, self._waiting[first : first + _MOST_PARTS])
        self._waiting, self._waiting_bytes = [], 0
        return self._file


def _room(sample: Ready) -> int:
    """Bytes that a sample takes in a shard, and the shard's end."""
    sizes = [len(sample.image.data), len(_about(sample))]
    if sample.label is not None:
        sizes.append(1)
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + len(_END)


def _about(sample: Ready) -> bytes:
    return json.dumps({"path": sample.path}).encode()


def _header(name: bytes, size: int) -> bytes:
    """Of a regular file; `name` has at most 100 bytes and `size` fits 11 octal digits."""
    digits = b"%011o" % size
    total = _HEADER_SUM + sum(name) + sum(digits) - 11 * ord("0")
    header = bytearray(_HEADER)
    header[: len(name)], header[124:135] = name, digits
    header[148:156] = b"%06o\0 " % total
    return bytes(header)


def _write_all(file: int, parts: Sequence[bytes]) -> None:
    left = sum(map(len, parts)) - os.writev(file, parts)
    if left:
        rest = memoryview(b"".join(parts))[-left:]
        while rest:
            rest = rest[os.write(file, rest) :]
