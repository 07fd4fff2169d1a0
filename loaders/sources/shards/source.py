"""WebDataset shards on a local or mounted disk, with random access to every sample.

`samples` defines which members of a tar make a sample. Samples follow the given order of the
shards, and within a shard the order of the images.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import os
import zlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import column_pieces, columns, stamps
from patchmill.loaders.files.column_pieces import Pieces
from patchmill.loaders.files.open_files import OpenFiles
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.reopened import Reopened
from patchmill.loaders.sources.shards import paths as shard_paths
from patchmill.loaders.sources.shards import set_index, tar

Column = np.ndarray | Pieces


class Shards(Reopened, NumberedSource):
    """All images of a shard set: a tar, a brace range, a glob, a folder of tars or a list."""

    def __init__(self, data: shard_paths.ShardPaths) -> None:
        paths = shard_paths.expand_paths(data)
        self.name = str(data) if isinstance(data, str | os.PathLike) else _describe_paths(paths)
        index = set_index.open_set_index(paths)
        self.fingerprint: str = index.meta["fingerprint"]
        self.classes: list[str] = index.meta["classes"]
        self._index, self._starts = index, index["starts"].tolist()
        self._offsets, self._sizes = index["offsets"], index["sizes"]
        self.masked = "mask_sizes" in index.columns
        self._open_files = OpenFiles(partial(_path, index), partial(_check_unchanged, index))

    def __len__(self) -> int:
        return self._starts[-1]

    @functools.cached_property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        """All labels as int64; reads all of them, unlike `labels_of`."""
        column = self._index.columns.get("labels")
        with _labels_error(self.name):
            return None if column is None else column_pieces.whole(column).astype(np.int64)

    def labels_of(self, ids: np.ndarray) -> np.ndarray | None:
        column = self._index.columns.get("labels")
        with _labels_error(self.name):
            return None if column is None else np.asarray(column[ids], np.int64)

    def read(self, index: int) -> bytes:
        checksums = self._index.columns.get("checksums")
        return self._read(index, self._offsets, self._sizes, checksums)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray:
        from patchmill.loaders.sources import ranges  # needs Numba

        shards = [self._shard(index) for index in ids.tolist()]
        opened = {}  # keeps the files open
        for shard in set(shards):
            with contextlib.suppress(OSError):  # raised again when its samples are read one by one
                opened[shard] = self._open_files.get(shard)
        numbers = [opened[shard].number if shard in opened else -1 for shard in shards]
        files = np.array(numbers, np.int32)
        checksums = self._index.columns.get("checksums")
        try:
            offsets, sizes = self._offsets[ids].astype(np.int64), self._sizes[ids].astype(np.int64)
            expected = None if checksums is None else checksums[ids]
        except OSError:
            return np.full((len(ids), 2), -1, np.int64)
        spans = ranges.read_into(files, offsets, sizes, memory)
        if expected is not None:
            checked = (self._index["checked"][shards] > 0) & (spans[:, 0] >= 0)
            differs = ranges.crc32(memory, spans) != expected
            spans[checked & differs] = -1
        return spans

    def read_mask(self, index: int) -> bytes | None:
        """The encoded .mask.png of a sample; None if it has none."""
        offsets, sizes = (self._index.columns.get(f"mask_{name}") for name in ("offsets", "sizes"))
        if offsets is None or sizes is None or not sizes[index]:
            return None
        return self._read(index, offsets, sizes, self._index.columns.get("mask_checksums"))

    def mask(self, index: int) -> np.ndarray | None:
        """The mask as uint8 [height, width]; None if there is none."""
        from patchmill.loaders.copypaste.mask_png import decode_mask

        data = self.read_mask(index)
        return (
            None if data is None else decode_mask(data, partial(self._where, index, "mask_offsets"))
        )

    def locate(self, index: int) -> tuple[int, int, int]:
        """(shard, offset, size) of the sample's image."""
        return self._shard(index), int(self._offsets[index]), int(self._sizes[index])

    def stamp(self, index: int) -> int:
        shard, checksums = self._shard(index), self._index.columns.get("checksums")
        if checksums is not None and self._index["checked"][shard]:  # compared when it is read
            return stamps.of_numbers(int(checksums[index]), int(self._sizes[index]))
        return stamps.of_numbers(*self._index["tar_states"][shard].tolist())

    def where(self, index: int) -> str:
        return self._where(index, "offsets")

    def prefetch(self, ids: np.ndarray) -> None:
        """Advise the kernel to read these samples ahead; does not wait."""
        if not hasattr(os, "posix_fadvise"):
            return
        for index in np.sort(ids).tolist():
            with contextlib.suppress(OSError, OverflowError):  # reading them will raise the error
                shard, offset, size = self.locate(index)
                file = self._open_files.get(shard)
                os.posix_fadvise(file.number, offset, size, os.POSIX_FADV_WILLNEED)

    def _where(self, index: int, column: str) -> str:
        shard = self._shard(index)
        path = os.fsdecode(_path(self._index, shard))
        try:
            offset = int(self._index[column][index])
        except OSError:
            return f"{path}: sample {index}"
        name = ""
        with contextlib.suppress(OSError):
            name = " " + os.fsdecode(tar.name_before(self._open_files.get(shard).number, offset))
        return f"{path}:{name} at byte {offset}"

    def _read(self, index: int, offsets: Column, sizes: Column, checksums: Column | None) -> bytes:
        shard = self._shard(index)
        file = self._open_files.get(shard)
        size, offset = int(sizes[index]), int(offsets[index])
        missing = offset + size - int(self._index["tar_states"][shard, 0])
        if missing <= 0:
            data = tar.read_at(file.number, size, offset)
            missing = size - len(data)
        if missing > 0:
            raise OSError(f"the shard ends {missing} bytes before the sample does")
        if checksums is not None and self._index["checked"][shard]:
            found, stored = zlib.crc32(data), int(checksums[index])
            if found != stored:
                raise OSError(
                    f"its checksum {found:08x} differs from {stored:08x}: "
                    "the file was changed or damaged"
                )
        return data

    def _shard(self, index: int) -> int:
        return bisect.bisect_right(self._starts, index) - 1


def _path(index: columns.Columns, shard: int) -> bytes:
    return columns.item(index["paths"], index["path_starts"], shard)


@contextlib.contextmanager
def _labels_error(name: str) -> Iterator[None]:
    """Raise a MillError for labels that cannot be read: no substitute sample could replace them."""
    try:
        yield
    except OSError as error:
        raise MillError(f"cannot read the labels of {name}: {error}") from None


def _check_unchanged(index: columns.Columns, shard: int, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns) != tuple(index["tar_states"][shard].tolist()):
        raise OSError("the shard was changed since it was indexed")


def _describe_paths(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more shards"
