"""A list of images as a source: CSV, TSV or Parquet with a column path and, optionally, label.

Paths are relative to the list's folder. Labels are integers, used as class numbers, or names, which
are numbered in sorted order.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from patchmill.loaders.common import columns
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.numbered import NumberedSource

ENDINGS = (".csv", ".tsv", ".parquet")

_MAX_CLASSES = 1 << 20


class PathList(NumberedSource):
    """The images of a list, in its order."""

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        file = Path(path).expanduser()
        self._folder = os.fsencode(os.path.realpath(file.parent)) + b"/"
        paths, labels = _read(self.name, file)
        if not paths:
            raise MillError(f"the list {self.name} is empty")
        self._paths, self._starts = columns.join([os.fsencode(path) for path in paths])
        self.classes, self.labels = _classes(self.name, labels)
        digest = hashlib.sha256(self._paths.data)
        for column in (self._starts, self.labels):
            digest.update(b"" if column is None else column.data)
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> bytes:
        with open(self._path(index), "rb", buffering=0) as file:
            return file.read()

    def where(self, index: int) -> str:
        return os.fsdecode(self._path(index))

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, columns.item(self._paths, self._starts, index))


def _read(name: str, file: Path) -> tuple[list[str], list[str] | None]:
    """Paths, and labels as text if there are any."""
    try:
        if file.suffix == ".parquet":
            return _read_parquet(name, file)
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            return _read_rows(name, lines, "\t" if file.suffix == ".tsv" else ",")
    except OSError as error:
        raise MillError(f"cannot read the list {name}: {error.strerror or error}") from None


def _read_rows(
    name: str, lines: Iterable[str], delimiter: str
) -> tuple[list[str], list[str] | None]:
    rows = csv.reader(lines, delimiter=delimiter)
    paths: list[str] = []
    labels: list[str] = []
    try:
        header = [title.strip().lower() for title in next(rows, [])]
        path_at, label_at = _find_columns(name, header)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header) or not row[path_at]:
                raise MillError(
                    f"line {rows.line_num} of {name} has {len(row)} values, the first line "
                    f"{len(header)}: quote values that hold a {delimiter!r}, and leave no path "
                    "empty"
                )
            paths.append(row[path_at])
            if label_at is not None:
                labels.append(row[label_at].strip())
    except csv.Error as error:
        raise MillError(f"cannot read line {rows.line_num} of {name}: {error}") from None
    return paths, None if label_at is None else labels


def _read_parquet(name: str, file: Path) -> tuple[list[str], list[str] | None]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MillError(
            f"{name} needs pyarrow: pip install pyarrow, or write the list as CSV"
        ) from None
    try:
        path_at, label_at = _find_columns(name, header := parquet.read_schema(file).names)
        wanted = [header[at] for at in (path_at, label_at) if at is not None]
        table = parquet.read_table(file, columns=wanted)
    except ArrowException as error:
        raise MillError(f"cannot read {name}: {error}") from None
    values = [table.column(title).to_pylist() for title in wanted]
    if any(value is None for column in values for value in column):
        raise MillError(f"{name} has empty values in its columns path or label: fill them")
    return values[0], list(map(str, values[1])) if label_at is not None else None


def _find_columns(name: str, header: list[str]) -> tuple[int, int | None]:
    """Positions of the columns path and label."""
    if "path" not in header:
        shown = ", ".join(header[:5]) or "nothing"
        raise MillError(f"the first line of {name} must name a column path, and has: {shown}")
    return header.index("path"), header.index("label") if "label" in header else None


def _classes(name: str, labels: list[str] | None) -> tuple[list[str], np.ndarray | None]:
    """Class names, and the class number of each sample."""
    if labels is None:
        return [], None
    distinct = sorted(set(labels))
    try:
        numbers = {label: int(label) for label in distinct}
    except ValueError:
        numbers, names = {label: i for i, label in enumerate(distinct)}, distinct
    else:
        least, most = min(numbers.values()), max(numbers.values())
        if not -(2**63) <= least <= most < 2**63:
            raise MillError(f"{name} has a label that has more than 64 bits: {most}")
        are_classes = least >= 0 and most < _MAX_CLASSES
        names = [str(number) for number in range(most + 1)] if are_classes else []
    return names, np.fromiter((numbers[label] for label in labels), np.int64, len(labels))
