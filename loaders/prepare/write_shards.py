"""Writes WebDataset shards: each under another name, renamed when it is complete and on the disk.

A sample is `000000123.jpg` (or .png ...: what its bytes are), `000000123.cls` with the number of
its class where there is one, and `000000123.json` with the path that it came from; these two take a
kilobyte each. Where it has a mask that is of use, there is `000000123.mask.png`. The number is the
sample's in the source. Headers hold neither times nor owners, so equal samples make equal tars; the
file's own time is made up of its checksum, so that an equal tar has an equal index too.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.prepare.tally import Ready
from patchmill.loaders.sources.shards import index
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards.tar import BLOCK

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
        self._tar: _Tar | None = None
        self._samples: list[index.ShardSample] = []

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
        return there

    def has_room(self, sample: Ready) -> bool:
        return self._tar is None or self._tar.size + _room(sample) <= self._size

    def add(self, sample: Ready) -> None:
        if self._tar is None:
            self._tar = _Tar(self._folder / f"{self._prefix}-{self._number:06d}.tar")
        key = b"%09d." % sample.id
        name = key + sample.image.ending.encode()
        at = self._tar.put(name, sample.image.data)
        if sample.label is not None:
            self._tar.put(key + b"cls", b"%d" % sample.label)
        self._tar.put(key + b"json", _about(sample))
        masked = {}
        if mask := sample.mask:
            where = self._tar.put(key + shard_samples.MASK.encode(), mask)
            masked = {"mask_offset": where, "mask_size": len(mask)}
        self._samples.append(
            index.ShardSample(
                name,
                at,
                len(sample.image.data),
                label=sample.label,
                checksum=sample.checksum,
                mask_checksum=zlib.crc32(mask),
                **masked,
            )
        )

    def commit(self) -> dict[str, Any]:
        """Give the shard its name; what the journal has to know of it."""
        if self._tar is None:
            return {}
        tar, samples = self._tar, self._samples
        tar.finish()
        self._tar, self._samples = None, []
        self._number += 1
        contents = index.ShardContents(samples, tar.members)
        index.write_index(tar.path, contents, self._classes)
        return {
            "name": tar.path.name,
            "samples": len(samples),
            "bytes": tar.size,
            "crc32": f"{tar.checksum:08x}",
        }

    def finish(self) -> None:
        """Nothing is left to do after the last commit."""

    def close(self) -> None:
        """Drop the shard in hand."""
        if self._tar is not None:
            self._tar.drop()

    def _is_there(self, shard: dict[str, Any]) -> bool:
        path = self._folder / shard["name"]
        try:
            whole = path.stat().st_size == shard["bytes"]
            return whole and os.path.exists(index.index_path(path))
        except OSError:
            return False


class _Tar:
    """One tar in the making, handed to the system in large pieces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = self.size = self.checksum = 0
        self._part = path.with_name(f".{path.name}.part")
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(self._part, flags, 0o666)

    def put(self, name: bytes, content: bytes) -> int:
        """Append a member; where its content begins."""
        self._gather(_header(name, len(content)))
        at = self.size
        self._gather(content)
        if padding := -len(content) % BLOCK:
            self._gather(_END[:padding])
        self.members += 1
        if self._waiting_bytes >= _GATHERED:
            self._write()
        return at

    def finish(self) -> None:
        """To the disk, and then to its name."""
        self._gather(_END)
        self._write()
        os.fsync(self._file)
        os.utime(self._file, ns=(time := _TIME_S * 10**9 + self.checksum, time))
        self._close()
        os.replace(self._part, self.path)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._part.unlink()

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _gather(self, part: bytes) -> None:
        self._waiting.append(part)
        self._waiting_bytes += len(part)
        self.size += len(part)
        self.checksum = zlib.crc32(part, self.checksum)

    def _write(self) -> None:
        for first in range(0, len(self._waiting), _MOST_PARTS):
            _write_all(self._file, self._waiting[first : first + _MOST_PARTS])
        self._waiting, self._waiting_bytes = [], 0


def _room(sample: Ready) -> int:
    """Bytes that a sample takes in a shard, and the shard's end."""
    sizes = [len(sample.image.data), len(_about(sample))]
    if sample.label is not None:
        sizes.append(1)
    if sample.mask:
        sizes.append(len(sample.mask))
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
