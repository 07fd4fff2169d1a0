"""Images inside Parquet files as a source: one read of the right bytes for each image."""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.shortage import shortage
from patchmill.loaders.files import stamps
from patchmill.loaders.files.open_files import OpenFiles
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.parquet import files, schema, snappy
from patchmill.loaders.sources.parquet.index import open_index
from patchmill.loaders.sources.parquet.places import CODECS, FRAGMENT, ROWS, STORED
from patchmill.loaders.sources.reopened import Reopened

log = logging.getLogger("patchmill")

CACHED_BYTES = 256 << 20  # of decompressed chunks that cannot be read partially


class Parquet(Reopened, NumberedSource):
    """The rows of Parquet files with encoded images, in the order of the files.

    `data` is a file, a glob, a folder, `hf://datasets/OWNER/NAME` or a list of these. `image` and
    `label` name the columns if their names are not the usual ones.
    """

    def __init__(
        self,
        data: str | Path | Sequence[str | Path],
        *,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        names = [str(data)] if isinstance(data, str | Path) else list(map(str, data))
        self.name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        self._paths = [path for name in names for path in files.expand(name)]
        self._states = states = [_state(path) for path in self._paths]
        index = open_index(self.name, self._paths, states, image, label)
        self.fingerprint: str = index.meta["fingerprint"]
        self.classes: list[str] = index.meta["classes"]
        self.labels: np.ndarray | None = index.columns.get("labels")
        self._index, self._column = index, index.meta["image"]
        self._row_chunks, self._row_starts = index["row_chunks"], index["row_starts"]
        self._row_sizes = index["row_sizes"]
        self._starts = [0, *np.cumsum(index["counts"]).tolist()]
        self._open_files = OpenFiles(
            lambda file: os.fsencode(self._paths[file]), partial(_check_unchanged, states)
        )
        self._chunks = _Chunks(CACHED_BYTES)
        whole = ~np.isin(index["chunk_codecs"], (STORED, FRAGMENT))
        if whole.any() and sum(size for size, _ in states) > CACHED_BYTES:
            log.warning(
                "%s uses a compression that requires decompressing whole pages for each image: "
                "`patchmill prepare` converts it to shards, which are read faster",
                self.name,
            )

    def __len__(self) -> int:
        return len(self._row_sizes)

    def read(self, index: int) -> bytes:
        try:
            return self._read(index)
        except MillError:
            raise
        except (OSError, ValueError, IndexError, OverflowError, MemoryError) as error:
            if isinstance(error, OSError) and shortage(error):  # not the row's fault
                raise
            # ArrowInvalid is a ValueError; its texts and those of its OSErrors have many lines
            problem = getattr(error, "strerror", None) or schema.one_line(error)
            raise OSError(problem or type(error).__name__) from None

    def _read(self, index: int) -> bytes:
        size, start = int(self._row_sizes[index]), int(self._row_starts[index])
        if size < 0:
            raise OSError("the row has no image bytes")
        if not size:
            return b""
        chunk = int(self._row_chunks[index])
        codec, offset = int(self._index["chunk_codecs"][chunk]), self._offset(chunk)
        if codec == STORED:
            return self._pread(chunk, size, offset + start)
        if codec == FRAGMENT:
            return self._read_fragments(chunk, start, size)
        if codec == ROWS:
            rows = self._chunks.get(chunk, lambda: self._read_rows(chunk))
            image = rows[start].as_py()
            if image is None:
                raise OSError("the row has no image bytes")
            return image
        page = self._chunks.get(chunk, lambda: self._decompress(chunk, CODECS[codec]))
        return page.slice(start, size).to_pybytes()

    def stamp(self, index: int) -> int:
        chunk = int(self._row_chunks[index])
        return stamps.of_numbers(*self._states[int(self._index["chunk_files"][chunk])])

    def where(self, index: int) -> str:
        file = bisect.bisect_right(self._starts, index) - 1
        return f"{self._paths[file]}, row {index - self._starts[file]}"

    def prefetch(self, ids: np.ndarray) -> None:
        """Advise the kernel to read these samples ahead; does not wait."""
        if not hasattr(os, "posix_fadvise"):
            return
        for index in np.sort(ids).tolist():
            chunk, start = int(self._row_chunks[index]), int(self._row_starts[index])
            codec = int(self._index["chunk_codecs"][chunk]) if chunk >= 0 else ROWS
            if codec == ROWS:
                continue
            size = int(self._row_sizes[index])
            offset, length = self._offset(chunk) + start, size
            if codec != STORED:
                offset, length = self._offset(chunk), int(self._index["chunk_stored"][chunk]) + size
            with contextlib.suppress(OSError):  # reading them will raise the error
                file = self._file(chunk)
                os.posix_fadvise(file.number, offset, length, os.POSIX_FADV_WILLNEED)

    def _read_fragments(self, chunk: int, start: int, size: int) -> bytes:
        import pyarrow

        last = chunk + max(start + size - 1, 0) // snappy.FRAGMENT
        offset = self._offset(chunk)
        stored = self._offset(last) + int(self._index["chunk_stored"][last]) - offset
        plain = (last - chunk) * snappy.FRAGMENT + int(self._index["chunk_sizes"][last])
        data = snappy.stream(self._pread(chunk, stored, offset), plain)
        return pyarrow.Codec("snappy").decompress(data, plain).slice(start, size).to_pybytes()

    def _decompress(self, chunk: int, codec: str) -> tuple[Any, int]:
        import pyarrow

        size = int(self._index["chunk_sizes"][chunk])
        stored = self._pread(chunk, int(self._index["chunk_stored"][chunk]), self._offset(chunk))
        return pyarrow.Codec(codec).decompress(stored, size), size

    def _read_rows(self, chunk: int) -> tuple[Any, int]:
        """A row group's column of bytes, decoded by pyarrow."""
        self._file(chunk)  # raises for a file that was changed
        import pyarrow
        from pyarrow import parquet

        path = self._paths[self._index["chunk_files"][chunk]]
        try:
            opened = parquet.ParquetFile(path)
            table = opened.read_row_group(self._offset(chunk), columns=[self._column])
            column = table.column(0).combine_chunks()
            for part in self._column.split(".")[1:]:
                column = column.field(part)
        except LookupError:
            raise OSError(f"the row group must have one column {self._column}") from None
        except pyarrow.ArrowException as error:
            raise OSError(schema.one_line(error)) from None
        return column, table.nbytes

    def _offset(self, chunk: int) -> int:
        return int(self._index["chunk_offsets"][chunk])

    def _file(self, chunk: int) -> Any:
        return self._open_files.get(int(self._index["chunk_files"][chunk]))

    def _pread(self, chunk: int, size: int, offset: int) -> bytes:
        file = self._file(chunk)
        data = os.pread(file.number, size, offset)
        while len(data) < size:
            more = os.pread(file.number, size - len(data), offset + len(data))
            if not more:
                raise OSError("the file ends before the end of the row")
            data += more
        return data


class _Chunks:
    """Thread-safe LRU cache of decompressed chunks, bounded in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._chunks: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, chunk: int, load: Callable[[], tuple[Any, int]]) -> Any:
        """The chunk, loaded on a cache miss; `load` returns it with its size in bytes."""
        with self._lock:
            if cached := self._chunks.get(chunk):
                self._chunks.move_to_end(chunk)
                return cached[0]
        loaded = load()
        with self._lock:
            if chunk not in self._chunks:
                self._chunks[chunk] = loaded
                self._used += loaded[1]
            while self._used > self._limit and len(self._chunks) > 1:
                self._used -= self._chunks.popitem(last=False)[1][1]
        return loaded[0]


def _state(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror or error}") from None
    return status.st_size, status.st_mtime_ns


def _check_unchanged(states: list[tuple[int, int]], file: int, status: os.stat_result) -> None:
    if (status.st_size, status.st_mtime_ns) != states[file]:
        raise OSError("the file was changed since it was indexed")
