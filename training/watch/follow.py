"""Follow log.csv while a run appends to it or rewrites it, without reading any of it twice."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.training.runtime import records
from patchmill.training.watch.run_files import open_regular
from patchmill.training.watch.series import Position, Series

CHUNK = 4 * 2**20  # bytes read at a time, so that a long log appears gradually
LONGEST_LINE = 2**20
_MARK = 64  # bytes before the position, which reveal that the file was rewritten


class Follower:
    """The log of one run, for any number of reader threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / records.LOG
        self._lock = threading.Lock()
        self._generations = 0
        self._restart()

    def since(self, position: Position) -> tuple[dict[str, Any] | None, Position, bool]:
        """Buckets new to a reader, its new position, and True if the file has more."""
        with self._lock:
            more = self._read()
            new, now = self._series.since(position)
            return new, now, more

    def _restart(self) -> None:
        self._offset, self._mark = 0, b""
        self._generations += 10**6  # above every generation of the previous series
        self._series = Series([], self._generations)

    def _read(self) -> bool:
        """Read one chunk of new data; True if there may be more."""
        try:
            with open_regular(self._path) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self._offset - _MARK, 0))
                if size < self._offset or file.read(len(self._mark)) != self._mark:
                    self._restart()
                    file.seek(0)
                data = file.read(CHUNK)
        except OSError:  # missing, or the disk is unavailable: keep what was read
            return False
        complete = data[: data.rfind(b"\n") + 1]
        if not complete:
            if len(data) > LONGEST_LINE:  # not a log: skip it
                self._offset += len(data)
                self._mark = data[-_MARK:]
            return False
        self._offset += len(complete)
        self._mark = (self._mark + complete)[-_MARK:]
        self._add(complete.decode("utf-8", "replace").splitlines())
        return len(data) == CHUNK

    def _add(self, lines: list[str]) -> None:
        if not self._series.names:
            names = next(csv.reader(lines[:1]), [])
            self._series = Series(names, self._generations)
            lines = lines[1:]
        self._series.add(parse(lines, len(self._series.names)))


def parse(lines: list[str], width: int) -> np.ndarray:
    """Rows of numbers [n, width]; NaN for cells that are empty or not numbers.

    Lines of another width are skipped: they are incomplete.
    """
    lines = [line for line in lines if line.count(",") == width - 1 and line]
    text = "," + ",".join(lines) + ","
    while ",," in text:
        text = text.replace(",,", ",nan,")
    try:
        values = np.fromstring(text[1:-1], sep=",") if lines else np.zeros(0)
    except ValueError:
        values = np.zeros(0)
    if len(values) != len(lines) * width:
        values = np.array([_number(cell) for line in lines for cell in line.split(",")])
    return values.reshape(len(lines), width)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan
