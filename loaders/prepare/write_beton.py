"""Writes a .beton that a later run can continue: `BetonWriter` with a memory.

A commit brings the samples so far to the disk and gives what the journal has to keep of them:
their rows of the table and of the allocations, and their checksums, about 90 bytes a sample.
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

from patchmill.loaders.prepare.tally import Ready
from patchmill.loaders.sources.beton.writer import BetonWriter

NO_LABEL = -1  # a .beton made here always has the field


class BetonOutput:
    """Appends samples to one file of at most `most`; a stretch of it is `size` bytes."""

    def __init__(
        self, path: Path, most: int, size: int, classes: Sequence[str], masks: bool
    ) -> None:
        self._writer, self._size = _Continued(path, most, classes, masks), size
        self._stretch = 0  # bytes since the last commit

    def restore(self, finished: Sequence[dict[str, Any]]) -> int:
        return self._writer.restore(finished)

    def has_room(self, sample: Ready) -> bool:
        return not self._stretch or self._stretch + _size(sample) <= self._size

    def add(self, sample: Ready) -> None:
        label = NO_LABEL if sample.label is None else sample.label
        self._writer.add(sample.image.data, label, sample.mask)
        self._stretch += _size(sample)

    def commit(self) -> dict[str, Any]:
        self._stretch = 0
        return self._writer.commit()

    def finish(self) -> None:
        self._writer.__exit__(None, None, None)

    def close(self) -> None:
        self._writer.pause()


def _size(sample: Ready) -> int:
    return len(sample.image.data) + len(sample.mask)


def part(path: Path) -> Path:
    """What the file is called until it is whole."""
    return path.with_name(f"{path.name}.part")


class _Continued(BetonWriter):
    """Keeps its file when it is left early, and takes up where the journal says it was."""

    def __init__(self, path: Path, most: int, classes: Sequence[str], masks: bool) -> None:
        for stale in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            stale.unlink()
        super().__init__(path, most, classes, masks=masks)
        self._file.close()
        kept = part(path)
        if kept.exists():
            self._temporary.unlink()
        else:
            os.replace(self._temporary, kept)
        self._temporary = kept
        self._file = open(os.open(kept, os.O_WRONLY | os.O_CLOEXEC), "wb")  # not truncated
        self._committed = 0

    def restore(self, finished: Sequence[dict[str, Any]]) -> int:
        there, end = 0, os.fstat(self._file.fileno()).st_size
        for state in finished:
            if state["end"] > end:
                break
            self._restore(state)
            there += 1
        self._file.truncate(self._at if there else 0)
        return there

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
        if kind is None:
            super().__exit__(None, None, None)
        else:
            self.pause()

    def _restore(self, state: dict[str, Any]) -> None:
        rows = slice(self._count, state["count"])
        for column, encoded in zip(
            (self._table, self._allocations, self._sums), state["rows"], strict=True
        ):
            found = np.frombuffer(base64.b64decode(encoded), column.dtype)
            column[rows] = found.reshape(-1, *column.shape[1:])
        self._count = self._committed = state["count"]
        self._at = state["end"]
