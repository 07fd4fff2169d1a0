"""Write WebDataset shards, each under a temporary name until it is complete and on disk.

A sample is `000000123.jpg` (or .png ..., by its bytes), `000000123.cls` with its class number if it
has a label, `000000123.json` with its path in the source, and `000000123.mask.png` if it has a
usable mask; cls and json take a kilobyte each. The number is the sample's index in the source.
Headers hold neither times nor owners, so equal samples give equal tars; the file's mtime is derived
from its checksum, so that equal tars also have equal indexes.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmill.loaders.files.writing import atomic_path
from patchmill.loaders.prepare.journal import PreparedSample
from patchmill.loaders.sources.shards import index
from patchmill.loaders.sources.shards import samples as shard_samples
from patchmill.loaders.sources.shards.tar import BLOCK

_END = bytes(2 * BLOCK)
_WRITE_BYTES = 1 << 20  # buffered before a write
_MAX_BUFFERS = 512  # per call of writev; systems allow 1024
_EPOCH_S = 1_577_836_800  # 2020

_HEADER = bytearray(BLOCK)
_HEADER[100:156] = (
    b"0000644\0" + b"0000000\0" * 2 + b"0" * 11 + b"\0" + b"0" * 11 + b"\0" + b" " * 8
)
_HEADER[156:157], _HEADER[257:265] = b"0", b"ustar\00000"
_HEADER_SUM = sum(_HEADER)


class ShardOutput:
    """Appends samples to a shard; each commit finishes it, and the next one begins."""

    def __init__(self, folder: Path, prefix: str, size: int, classes: Sequence[str]) -> None:
        self._folder, self._prefix, self._size, self._classes = folder, prefix, size, classes
        self._number = 0  # of the current shard
        self._tar: _TarWriter | None = None
        self._samples: list[index.ShardSample] = []

    def restore(self, segments: Sequence[dict[str, Any]]) -> int:
        """Resume after the segments whose shards exist; return their number."""
        restored = 0
        for shard in segments:
            if not is_there(self._folder, shard):
                break
            restored += 1
            self._number += bool(shard)
        for stale in self._folder.glob(f"{self._prefix}-*.tar.index.*.tmp"):
            stale.unlink()
        return restored

    def has_room(self, sample: PreparedSample) -> bool:
        return self._tar is None or self._tar.size + _tar_bytes(sample) <= self._size

    def add(self, sample: PreparedSample) -> None:
        if self._tar is None:
            self._tar = _TarWriter(self._folder / f"{self._prefix}-{self._number:06d}.tar")
        key = b"%09d." % sample.id
        name = key + sample.image.extension.encode()
        offset = self._tar.append(name, sample.image.data)
        if sample.label is not None:
            self._tar.append(key + b"cls", b"%d" % sample.label)
        self._tar.append(key + b"json", _metadata(sample))
        mask_fields = {}
        if mask := sample.mask:
            mask_offset = self._tar.append(key + shard_samples.MASK.encode(), mask)
            mask_fields = {"mask_offset": mask_offset, "mask_size": len(mask)}
        self._samples.append(
            index.ShardSample(
                name,
                offset,
                len(sample.image.data),
                label=sample.label,
                checksum=sample.checksum,
                mask_checksum=zlib.crc32(mask),
                **mask_fields,
            )
        )

    def commit(self) -> dict[str, Any]:
        """Finish the shard; return its entry for the journal and dataset.json."""
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
        """Do nothing: the last commit has finished the last shard."""

    def close(self) -> None:
        """Discard the unfinished shard."""
        if self._tar is not None:
            self._tar.discard()


def is_there(folder: Path, shard: dict[str, Any]) -> bool:
    """True if a segment's shard and its index exist in the folder, or if it has no shard."""
    if not shard:
        return True
    path = folder / shard["name"]
    try:
        complete = path.stat().st_size == shard["bytes"]
        return complete and os.path.exists(index.index_path(path))
    except OSError:
        return False


class _Discarded(Exception):
    pass


class _TarWriter:
    """Writes one tar in large blocks, under a temporary name until `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = self.size = self.checksum = 0
        self._buffers: list[bytes] = []
        self._buffered = 0  # bytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._rename = contextlib.ExitStack()
        self._file = os.open(self._rename.enter_context(atomic_path(path)), flags, 0o666)

    def append(self, name: bytes, content: bytes) -> int:
        """Append a member; return the offset of its content."""
        self._buffer(_header(name, len(content)))
        offset = self.size
        self._buffer(content)
        if padding := -len(content) % BLOCK:
            self._buffer(_END[:padding])
        self.members += 1
        if self._buffered >= _WRITE_BYTES:
            self._write()
        return offset

    def finish(self) -> None:
        """Sync to disk, and rename."""
        self._buffer(_END)
        self._write()
        os.fsync(self._file)
        os.utime(self._file, ns=(time := _EPOCH_S * 10**9 + self.checksum, time))
        self._close()
        self._rename.close()

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(_Discarded), self._rename:
            raise _Discarded

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _buffer(self, data: bytes) -> None:
        self._buffers.append(data)
        self._buffered += len(data)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def _write(self) -> None:
        for first in range(0, len(self._buffers), _MAX_BUFFERS):
            _write_all(self._file, self._buffers[first : first + _MAX_BUFFERS])
        self._buffers, self._buffered = [], 0


def _tar_bytes(sample: PreparedSample) -> int:
    """Bytes of a sample in a tar, plus the end-of-tar blocks."""
    sizes = [len(sample.image.data), len(_metadata(sample))]
    if sample.label is not None:
        sizes.append(1)
    if sample.mask:
        sizes.append(len(sample.mask))
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + len(_END)


def _metadata(sample: PreparedSample) -> bytes:
    return json.dumps({"path": sample.path}).encode()


def _header(name: bytes, size: int) -> bytes:
    """A regular file's header; `name` has at most 100 bytes, `size` at most 11 octal digits."""
    digits = b"%011o" % size
    total = _HEADER_SUM + sum(name) + sum(digits) - 11 * ord("0")
    header = bytearray(_HEADER)
    header[: len(name)], header[124:135] = name, digits
    header[148:156] = b"%06o\0 " % total
    return bytes(header)


def _write_all(file: int, buffers: Sequence[bytes]) -> None:
    unwritten = sum(map(len, buffers)) - os.writev(file, buffers)
    if unwritten:
        rest = memoryview(b"".join(buffers))[-unwritten:]
        while rest:
            rest = rest[os.write(file, rest) :]
