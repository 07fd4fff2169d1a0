"""Write a .beton that a later run can resume.

A commit syncs the samples so far to disk and returns their state for the journal: their rows of the
table and of the allocations, and their checksums, about 90 bytes per sample.
"""

from __future__ import annotations

import base64
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from patchmill.loaders.prepare.journal import PreparedSample
from patchmill.loaders.sources.beton.writer import BetonWriter

NO_LABEL = -1  # of samples without a label: the field is always present


class BetonOutput:
    """Appends up to `most` samples to one file, in segments of about `segment_bytes`."""

    def __init__(
        self, path: Path, most: int, segment_bytes: int, classes: Sequence[str], masks: bool
    ) -> None:
        self._writer = _ResumableWriter(path, most, classes, masks)
        self._limit, self._uncommitted = segment_bytes, 0  # bytes

    def restore(self, segments: Sequence[dict[str, Any]]) -> int:
        """Resume after the segments that are in the file; return their number."""
        return self._writer.restore(segments)

    def has_room(self, sample: PreparedSample) -> bool:
        return not self._uncommitted or self._uncommitted + _size(sample) <= self._limit

    def add(self, sample: PreparedSample) -> None:
        label = NO_LABEL if sample.label is None else sample.label
        self._writer.add(sample.image.data, label, sample.mask)
        self._uncommitted += _size(sample)

    def commit(self) -> dict[str, Any]:
        self._uncommitted = 0
        return self._writer.commit()

    def finish(self) -> None:
        self._writer.__exit__(None, None, None)

    def close(self) -> None:
        self._writer.pause()


def _size(sample: PreparedSample) -> int:
    return len(sample.image.data) + len(sample.mask)


def partial_path(path: Path) -> Path:
    """The file's name until it is complete."""
    return path.with_name(f"{path.name}.part")


class _ResumableWriter(BetonWriter):
    """A BetonWriter that keeps its partial file, and resumes from states of the journal."""

    def __init__(self, path: Path, most: int, classes: Sequence[str], masks: bool) -> None:
        for stale in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            stale.unlink()
        super().__init__(path, most, classes, masks=masks)
        self._file.close()
        partial = partial_path(path)
        if partial.exists():
            self._temporary.unlink()
        else:
            os.replace(self._temporary, partial)
        self._temporary = partial
        self._file = open(os.open(partial, os.O_WRONLY | os.O_CLOEXEC), "wb")  # not truncated
        self._committed = 0

    def restore(self, segments: Sequence[dict[str, Any]]) -> int:
        restored, end = 0, os.fstat(self._file.fileno()).st_size
        for state in segments:
            if state["end"] > end:
                break
            self._restore(state)
            restored += 1
        self._file.truncate(self._at if restored else 0)
        return restored

    def commit(self) -> dict[str, Any]:
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
        rows = slice(self._committed, self._count)
        self._committed = self._count
        parts = (part[rows].tobytes() for part in (self._table, self._allocations, self._sums))
        encoded = [base64.b64encode(part).decode() for part in parts]
        return {"count": self._count, "end": self._at, "rows": encoded}

    def pause(self) -> None:
        self._file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish; if that fails, as on a full disk, the partial file stays."""
        try:
            if kind is None:
                with self._writing():
                    self._finish()
        finally:
            self.pause()

    def _restore(self, state: dict[str, Any]) -> None:
        rows = slice(self._count, state["count"])
        for column, encoded in zip(
            (self._table, self._allocations, self._sums), state["rows"], strict=True
        ):
            values = np.frombuffer(base64.b64decode(encoded), column.dtype)
            column[rows] = values.reshape(-1, *column.shape[1:])
        self._count = self._committed = state["count"]
        self._at = state["end"]
