"""Repair a cached set index that turns out to be damaged while in use, by rebuilding it.

Without this, samples whose rows cannot be read would go to the ledger: thousands share a piece.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.column_pieces import Pieces
from patchmill.loaders.files.columns import Columns

log = logging.getLogger("patchmill")


def watched(index: Columns, file: Path, again: Callable[[], Columns]) -> Columns:
    """The index; damaged pieces are replaced by those of one that `again` builds without `file`.

    OSError if the rebuilt index describes other samples: the shards have changed meanwhile.
    """
    repair = _Repair(index, file, again)
    for column in index.columns.values():
        if isinstance(column, Pieces):
            column.fallback = repair.column
    return index


class _Repair:
    def __init__(self, index: Columns, file: Path, again: Callable[[], Columns]) -> None:
        self._fingerprint, self._starts = index.meta["fingerprint"], index["starts"]
        self._file, self._again = file, again
        self._identity = _identity(file)
        self._made: Columns | None = None
        self._lock = threading.Lock()

    def column(self, name: str, error: OSError) -> np.ndarray | Pieces:
        """A column of the rebuilt index; any thread may call this."""
        with self._lock:
            if self._made is None:
                self._made = self._make(error)
            return self._made[name]

    def _make(self, error: OSError) -> Columns:
        problem = error.strerror or str(error)
        log.warning("rebuilding the cached index %s: %s", self._file, problem)
        try:
            if _identity(self._file) == self._identity:  # else another process has rebuilt it
                self._file.unlink(missing_ok=True)
            made = self._again()
        except MillError as failure:
            raise OSError(str(failure)) from None
        same = np.array_equal(made["starts"], self._starts)
        if not same or made.meta["fingerprint"] != self._fingerprint:
            raise OSError(
                f"{self._file} is damaged, and the shards were changed since it was made: start "
                "again"
            )
        return made


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
