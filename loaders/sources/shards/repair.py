"""Repair of a cached set index that turns out to be damaged while it is in use: it is only a cache.

A sample whose row cannot be read would go to the ledger, and thousands of rows share a piece.
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
    """The index, whose damaged pieces are taken from one that `again` makes, after `file` is gone.

    An index that describes other samples is an OSError: the shards were changed meanwhile.
    """
    repair = _Repair(index, file, again)
    for column in index.columns.values():
        if isinstance(column, Pieces):
            column.again = repair.column
    return index


class _Repair:
    def __init__(self, index: Columns, file: Path, again: Callable[[], Columns]) -> None:
        self._fingerprint, self._starts = index.meta["fingerprint"], index["starts"]
        self._file, self._again = file, again
        self._identity = _identity(file)
        self._made: Columns | None = None
        self._lock = threading.Lock()

    def column(self, name: str, error: OSError) -> np.ndarray | Pieces:
        """A column of the index that is made again; any thread may ask."""
        with self._lock:
            if self._made is None:
                self._made = self._make(error)
            return self._made[name]

    def _make(self, error: OSError) -> Columns:
        problem = error.strerror or str(error)
        log.warning("the cached index %s is made again, for %s", self._file, problem)
        try:
            if _identity(self._file) == self._identity:  # else another process has made it again
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
