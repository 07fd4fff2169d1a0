"""Rows of a list file: CSV and TSV with a header line, JSON lines, or Parquet."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.names import LABEL_NAMES

PATHS = (
    "path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "image_file",
    "image",
    "img",
)
NAMES = ("class_name", "label_name")

_MAX_LINE = 1 << 30  # characters of a CSV value; the csv module's default limit is 131,072


class Rows(NamedTuple):
    """The columns of a list as text."""

    paths: list[str]
    labels: list[str] | None
    names: list[str] | None  # class name of each label


def read(name: str, file: Path) -> Rows:
    """Read a list by its file extension; MillError if it cannot be read."""
    try:
        if file.suffix == ".parquet":
            return _read_parquet(name, file)
        with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
            if file.suffix == ".jsonl":
                return _read_objects(name, lines)
            return _read_rows(name, lines, "\t" if file.suffix == ".tsv" else None)
    except OSError as error:
        raise MillError(f"cannot read the list {name}: {error.strerror or error}") from None


def _read_rows(name: str, lines: Iterator[str], delimiter: str | None) -> Rows:
    """Rows of CSV; the default delimiter is the most frequent one in the first line."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_LINE))
    first = next(lines, "")
    delimiter = delimiter or max(",;\t", key=first.count)
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
    columns: list[list[str]] = []
    try:
        header = [title.strip().lower() for title in next(rows, [])]
        places = _find_columns(f"the first line of {name}", header)
        columns = [[] for _ in places]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header) or not row[places[0]]:
                raise MillError(
                    f"line {rows.line_num} of {name} has {len(row)} values, the first line "
                    f"{len(header)}: quote values that hold a {delimiter!r}, and leave no path "
                    "empty"
                )
            for column, at in zip(columns, places, strict=True):
                column.append(row[at] if at == places[0] else row[at].strip())
    except csv.Error as error:
        raise MillError(f"cannot read line {rows.line_num} of {name}: {error}") from None
    return _rows(header, places, columns)


def _read_objects(name: str, lines: Iterable[str]) -> Rows:
    header: list[str] = []
    places: list[int] = []
    columns: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise MillError(f"cannot read line {number} of {name}: {error}") from None
        if not isinstance(row, dict):
            raise MillError(f'line {number} of {name} must be an object, as in {{"path": "a.jpg"}}')
        if not columns:
            header = list(row)
            places = _find_columns(
                f"line {number} of {name}", [title.strip().lower() for title in header]
            )
            columns = [[] for _ in places]
        for column, at in zip(columns, places, strict=True):
            value = row.get(header[at])
            if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
                raise MillError(
                    f"line {number} of {name} needs a string or a whole number as {header[at]!r}"
                )
            column.append(str(value))
    if not columns:
        raise MillError(f"the list {name} is empty")
    return _rows([title.strip().lower() for title in header], places, columns)


def _read_parquet(name: str, file: Path) -> Rows:
    from patchmill.loaders.sources.parquet import schema

    opened, _ = schema.open_file(str(file))
    header = opened.schema_arrow.names
    places = _find_columns(f"the schema of {name}", header)
    wanted = [header[at] for at in places]
    with schema.readable(f"the list {name}"):
        table = opened.read(columns=wanted)
        columns = [table.column(title).to_pylist() for title in wanted]
    if any(value is None for column in columns for value in column):
        raise MillError(f"{name} has empty values in its columns {' and '.join(wanted)}: fill them")
    rows = _rows(header, places, [list(map(str, column)) for column in columns])
    classes = dict(enumerate(schema.class_names(name, opened.schema_arrow)))
    if rows.labels is not None and rows.names is None and classes:
        names = [classes.get(value, str(value)) for value in columns[1]]
        return rows._replace(names=names)
    return rows


def _find_columns(what: str, header: Sequence[str]) -> list[int]:
    """Indices of the columns of paths and, if there are any, of labels and class names."""
    path = next((title for title in PATHS if title in header), None)
    if path is None:
        shown = ", ".join(header[:5]) or "nothing"
        raise MillError(
            f"{what} must name a column path, but has: {shown}; name the columns path and label"
        )
    label = next((title for title in LABEL_NAMES if title in header), None)
    name = next((title for title in NAMES if title in header), None)
    return [header.index(title) for title in (path, label, name) if title is not None]


def _rows(header: Sequence[str], places: Sequence[int], columns: list[list[str]]) -> Rows:
    by_title = {header[at]: column for at, column in zip(places, columns, strict=True)}
    labels = next((by_title[title] for title in LABEL_NAMES if title in by_title), None)
    names = next((by_title[title] for title in NAMES if title in by_title), None)
    return Rows(columns[0], names, None) if labels is None else Rows(columns[0], labels, names)
