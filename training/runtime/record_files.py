"""log.csv and evaluations.jsonl: written line by line, and read without damaged lines.

Lines that a killed process wrote only in part, or that are damaged, are skipped.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from patchmill.loaders.files.regular_files import open_regular
from patchmill.loaders.files.writing import write_atomic

log = logging.getLogger("patchmill")

LOG, EVALUATIONS = "log.csv", "evaluations.jsonl"
DAMAGED = ".damaged"  # suffix for the copy of a file that lost lines


class Log(NamedTuple):
    """Parsed log.csv: column names, rows, count of unreadable lines, partial last line.

    The first column is the step.
    """

    names: list[str]
    rows: list[list[str]]
    bad: int
    is_torn: bool


class Evaluations(NamedTuple):
    """Parsed evaluations.jsonl: rows, their lines, count of unreadable lines, partial last line."""

    rows: list[dict[str, Any]]
    lines: list[bytes]
    bad: int
    is_torn: bool


def read_log(path: Path) -> Log:
    lines, is_torn = _lines(path)
    names = _header(lines[0]) if lines else []
    rows = [row for line in lines[1:] if (row := _row(line, len(names)))]
    return Log(names, rows, len(lines) - bool(names) - len(rows), is_torn)


def read_evaluations(path: Path) -> Evaluations:
    lines, is_torn = _lines(path)
    found = [(row, line) for line in lines if (row := _evaluation(line))]
    rows, kept = [row for row, _ in found], [line for _, line in found]
    return Evaluations(rows, kept, len(lines) - len(rows), is_torn)


def content(path: Path) -> bytes:
    """Read a regular file; empty if there is none."""
    try:
        file, _ = open_regular(path)
    except FileNotFoundError:
        return b""
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def number(cell: str) -> float | None:
    return float(cell) if cell else None


class RecordFiles:
    """Writes both files. A run that resumes continues after its step `start`: later rows are cut.

    If lines cannot be read, the original file is kept next to the new one.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        found, evaluated = read_log(folder / LOG), read_evaluations(folder / EVALUATIONS)
        _report_cut_lines(folder / EVALUATIONS, evaluated.bad, evaluated.is_torn)
        _report_cut_lines(folder / LOG, found.bad, found.is_torn)
        pairs = zip(evaluated.rows, evaluated.lines, strict=True)
        kept = [line + b"\n" for row, line in pairs if row["step"] <= start]
        write_atomic(folder / EVALUATIONS, b"".join(kept), durable=True)
        self._unwritten: list[Callable[[], None]] = []  # after an error
        self._torn = ""  # name of a file that may end in a partial line
        self._names: list[str] = []
        self._write_all(found.names, [row for row in found.rows if int(row[0]) <= start])

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        self._unwritten.append(lambda: self._write_row(step, values))
        self.flush()

    def evaluation(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        line = json.dumps({"step": step, "epoch": epoch, **values}) + "\n"
        self._unwritten.append(lambda: self._append(EVALUATIONS, line))
        self.flush()

    def flush(self) -> None:
        """Write all rows; after an error, such as a full disk, the next call retries."""
        if self._torn:
            self._cut_partial_line(self._torn)
            self._torn = ""
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]

    def _cut_partial_line(self, name: str) -> None:
        """Remove the part of a line that still fitted on the disk."""
        whole, newline, _ = content(self._folder / name).rpartition(b"\n")
        write_atomic(self._folder / name, whole + newline, durable=True)

    def _write_row(self, step: int, values: Mapping[str, float | None]) -> None:
        if not set(values) <= set(self._names):
            rows = read_log(self._folder / LOG).rows
            names = [
                *(self._names or ["step"]),
                *(name for name in values if name not in self._names),
            ]
            self._write_all(names, rows)
        row = [str(step), *(_cell(values.get(name)) for name in self._names[1:])]
        self._append(LOG, _line(row))

    def _append(self, name: str, line: str) -> None:
        try:
            with open(self._folder / name, "ab") as file:
                file.write(line.encode())
        except OSError:
            self._torn = name
            raise

    def _write_all(self, names: list[str], rows: Sequence[Sequence[str]]) -> None:
        padded = [[*row, *[""] * (len(names) - len(row))] for row in rows]
        lines = map(_line, [names, *padded]) if names else ()
        write_atomic(self._folder / LOG, "".join(lines), durable=True)
        self._names = names


def _report_cut_lines(path: Path, bad: int, is_torn: bool) -> None:
    if bad:
        copy = path.with_name(path.name + DAMAGED)
        write_atomic(copy, content(path), durable=True)
        log.warning(
            "%s has %s, removed from now on: the original file is %s",
            path,
            "a line that cannot be read" if bad == 1 else f"{bad:,} lines that cannot be read",
            copy,
        )
    elif is_torn:
        log.info("%s ends in a partial line, which is cut", path)


# ------------------------------------------------------------------------------------------- lines


def _lines(path: Path) -> tuple[list[bytes], bool]:
    """Return the non-empty whole lines of a file, and whether a partial line follows."""
    whole, newline, rest = content(path).rpartition(b"\n")
    return [line for line in (whole + newline).splitlines() if line], bool(rest)


def _header(line: bytes) -> list[str]:
    """Parse the column names; empty if the line is not a valid header."""
    try:
        (names,) = csv.reader([line.decode()])
    except (UnicodeDecodeError, ValueError, csv.Error):
        return []
    valid = names[0] == "step" and all(names) and len(set(names)) == len(names)
    return names if valid else []


def _row(line: bytes, width: int) -> list[str]:
    """Parse the cells of a row; empty if they are not `width` numbers, the first an integer."""
    try:
        cells = line.decode("ascii").split(",")
        if len(cells) != width or int(cells[0]) < 0:
            return []
        for cell in cells:
            number(cell)
    except ValueError:  # includes UnicodeDecodeError
        return []
    return cells


def _evaluation(line: bytes) -> dict[str, Any]:
    """Parse the numbers of a row, its step among them; empty if the line has no step."""
    try:
        decoded = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    row = decoded if isinstance(decoded, dict) else {}
    figures = {name: value for name, value in row.items() if is_number(value)}
    if not isinstance(figures.get("step"), int):
        return {}
    return {"step": figures["step"], "epoch": 0.0, **figures}


def is_number(value: object) -> bool:
    """True for numbers that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _line(row: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"
