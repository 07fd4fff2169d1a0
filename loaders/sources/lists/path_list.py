"""Images named by a list, as a source: a list file, or paths in memory.

Paths are relative to the list file's folder, or for a list in memory to the working folder. Labels
are integers, used as class numbers, or names, which are numbered in sorted order.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files import columns, stamps
from patchmill.loaders.files.regular_files import read_file
from patchmill.loaders.sources.lists import labels as label_numbers
from patchmill.loaders.sources.lists import rows
from patchmill.loaders.sources.numbered import NumberedSource

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")

_PROBED = 8  # files checked for existence when a list is opened


class Paths(NumberedSource):
    """The images at the given paths, in their order."""

    def __init__(
        self,
        name: str,
        folder: str,
        paths: Sequence[str],
        labels: np.ndarray | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self.name, self.labels, self.classes = name, labels, list(classes)
        self._folder = os.fsencode(os.path.realpath(folder)) + b"/"
        if not paths:
            raise MillError(f"the list {name} is empty")
        encoded = [os.fsencode(path) for path in paths]
        if odd := next((n for n, path in enumerate(encoded, 1) if b"\0" in path), 0):
            raise MillError(f"path {odd} of the list {name} contains a zero byte")
        self._paths, self._starts = columns.join(encoded)
        digest = hashlib.sha256(self._paths.data)
        for column in (self._starts, self.labels):
            digest.update(b"" if column is None else column.data)
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> bytes:
        return read_file(self._path(index))

    def stamp(self, index: int) -> int:
        return stamps.of_file(os.stat(self._path(index)))

    def where(self, index: int) -> str:
        return os.fsdecode(self._path(index))

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, columns.item(self._paths, self._starts, index))


class PathList(Paths):
    """The images of a list file: CSV, TSV, JSON lines or Parquet."""

    def __init__(self, path: str | Path) -> None:
        name, file = str(path), Path(path).expanduser()
        listed = rows.read(name, file)
        classes: list[str] = []
        labels: np.ndarray | None = None
        if listed.labels and listed.names:
            classes, labels = label_numbers.named(name, listed.labels, listed.names)
        elif listed.labels:
            classes, labels = label_numbers.numbered(name, listed.labels)
        super().__init__(name, str(file.parent), listed.paths, labels, classes)


def open_list(path: str | Path) -> Paths:
    """Open a list file; MillError if none of the images that are probed exists."""
    return _checked(PathList(path))


def open_paths(items: Sequence[Any]) -> Paths:
    """Open a list of paths, or of pairs of path and label; labels are all numbers or all names."""
    pairs = [item if isinstance(item, list | tuple) else (item, None) for item in items]
    for number, pair in enumerate(pairs):
        if len(pair) != 2 or not isinstance(pair[0], str | os.PathLike):
            raise MillError(
                f"item {number} of the list must be a path, or a path and its label, like the first"
            )
    paths = [os.path.expanduser(os.fspath(path)) for path, _ in pairs]
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    labels = [label for _, label in pairs]
    if all(label is None for label in labels):
        return _checked(Paths(name, ".", paths))
    texts = [_label(number, label) for number, label in enumerate(labels)]
    classes, numbers = label_numbers.numbered("the list", texts)
    return _checked(Paths(name, ".", paths, numbers, classes))


def _label(number: int, label: Any) -> str:
    if isinstance(label, str):
        return label
    try:
        return str(operator.index(label))
    except TypeError:
        raise MillError(
            f"item {number} of the list needs a whole number or a name as its label, like the "
            "others"
        ) from None


def _checked(source: Paths) -> Paths:
    probed = np.linspace(0, len(source) - 1, min(_PROBED, len(source))).astype(np.int64)
    places = [source.where(int(id)) for id in probed]
    if not any(os.path.lexists(place) for place in places):
        raise MillError(
            f"there is no image at {places[0]}, nor at the other paths that were checked: paths "
            f"of {source.name} are relative to {os.fsdecode(source._folder)}"
        )
    return source
