"""A folder of image files: one sub-folder for each class, or all files without labels.

The first start lists the folder and caches an index; later starts map that index and only compare
the modification times of the listed directories. Hidden files and those without an image extension
are skipped. A file that is not an image is only found when it is decoded; one that is not a regular
file (a pipe, a broken link), when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.files import cache, columns, stamps
from patchmill.loaders.files.column_checks import are_below, are_starts, has_columns, has_meta
from patchmill.loaders.files.regular_files import read_file
from patchmill.loaders.sources import folder_listing
from patchmill.loaders.sources.folder_listing import EXTENSIONS
from patchmill.loaders.sources.numbered import NumberedSource

log = logging.getLogger("patchmill")

_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".lmdb", ".beton", ".parquet")
KIND = "folder index 2"
_THREADS = 16  # to stat directories: on network disks each costs a round trip
_STATS_PER_TASK = 64  # directories that a thread checks per task
_DTYPES = {
    "paths": "|u1",
    "starts": "<i8",
    "labels": "<i8",
    "directories": "|u1",
    "directory_starts": "<i8",
    "directory_times": "<i8",
}
_META = {"fingerprint": str, "classes": list, "left_out": list}
_RACY_NS = 2_000_000_000  # within this, a further change may not show in the modification time


class Folder(NumberedSource):
    """All images below `path`, in the byte order of their paths.

    The sub-folders of `path`, sorted, are the classes of all images below them. If none of them
    holds an image, the data set is the images in `path` itself, without labels.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        root = os.path.realpath(os.path.expanduser(self.name))
        _check(self.name, root)
        self._root = os.fsencode(root) + b"/"
        index = _open_index(root)
        self._paths, self._starts = index["paths"], index["starts"]
        self.fingerprint: str = index.meta["fingerprint"]
        self.classes: list[str] = index.meta["classes"]
        self.labels: np.ndarray | None = index["labels"] if self.classes else None
        for warning in [*index.meta["left_out"], *self._splits_as_classes()]:
            _warn_once(warning)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> bytes:
        return read_file(self._path(index))

    def stamp(self, index: int) -> int:
        return stamps.of_file(os.stat(self._path(index)))

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        from patchmill.loaders.sources import whole_files  # needs Numba

        return whole_files.read(self._root, self._paths, self._starts, ids, memory)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray:
        from patchmill.loaders.sources import whole_files  # needs Numba

        return whole_files.read_into(self._root, self._paths, self._starts, ids, memory)

    def where(self, index: int) -> str:
        return os.fsdecode(self._path(index))

    def _splits_as_classes(self) -> list[str]:
        """A warning if the class folders are in fact the training and validation splits."""
        splits = self.classes and _SPLITS.issuperset(self.classes)
        if not splits or columns.item(self._paths, self._starts, 0).count(b"/") < 2:
            return []
        return [
            f"the classes of {self.name} are taken from its folders {' and '.join(self.classes)}; "
            "for the class folders in them, name one of these"
        ]

    def _path(self, index: int) -> bytes:
        return self._root + columns.item(self._paths, self._starts, index)


@functools.cache
def _warn_once(message: str) -> None:
    """Warn once per process, which may open a folder many times."""
    log.warning(message)


def _check(name: str, root: str) -> None:
    if not name or not os.path.lexists(root):
        if any(character in name for character in "*?["):
            raise MillError(
                f"there is no folder {name!r}: patterns name shards and Parquet files; for images "
                "give their folder, or a list of paths, as from glob.glob"
            )
        inside = "" if os.path.isabs(os.path.expanduser(name)) else f" in {os.getcwd()}"
        raise MillError(
            f"there is no folder {name!r}{inside}: check the path; painted images are scenes:1000"
        )
    if not os.path.isdir(root):
        raise MillError(f"{name!r} is a file, not a folder of images")


# ---------------------------------------------------------------------------------------- the index


def _open_index(root: str) -> columns.Columns:
    key = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    path = cache.root() / "folders" / f"{key}.index"
    index = columns.find(path, KIND, valid=_is_valid)
    if index is not None and _is_fresh(os.fsencode(root), index):
        return index
    content, meta = _build_index(root)
    try:
        cache.folder("folders")
        columns.write(path, KIND, content, meta)
        return columns.read(path, KIND)
    except (OSError, MillError) as error:
        log.warning(
            "cannot cache the index of %s, which will be listed at each start: %s", root, error
        )
        return columns.Columns(meta, content)


def _is_valid(index: columns.Columns) -> bool:
    if not has_columns(index, _DTYPES) or not has_meta(index, _META):
        return False
    count, classes = len(index["starts"]) - 1, len(index.meta["classes"])
    return (
        count > 0
        and are_starts(index["starts"], count, len(index["paths"]))
        and index["paths"].all()  # no path contains a zero byte
        and index["directories"].all()
        and len(index["labels"]) == (count if classes else 0)
        and are_below(index["labels"], classes)
        and are_starts(
            index["directory_starts"], len(index["directory_times"]), len(index["directories"])
        )
    )


def _is_fresh(root: bytes, index: columns.Columns) -> bool:
    names, starts = index["directories"], index["directory_starts"]
    recorded = index["directory_times"]

    def unchanged(first: int) -> bool:
        return all(
            _modified(os.path.join(root, columns.item(names, starts, i))) == recorded[i]
            for i in range(first, min(first + _STATS_PER_TASK, len(recorded)))
        )

    return all(map_in_threads(unchanged, range(0, len(recorded), _STATS_PER_TASK), _THREADS))


def _modified(directory: bytes) -> int | None:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return None


def _build_index(root: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    started = time.time_ns()
    with track(f"listing {root}") as advance:
        listing = folder_listing.list_images(os.fsencode(root), advance)
    if not listing.paths:
        raise MillError(
            f"there are no images in {root!r} or its sub-folders: "
            f"looked for files ending in {', '.join(EXTENSIONS)}{_archive_in(root)}"
        )
    paths, starts = columns.join(listing.paths)
    directories, directory_starts = columns.join(list(listing.directories))
    times = np.fromiter(listing.directories.values(), np.int64)
    content = {
        "paths": paths,
        "starts": starts,
        "labels": np.asarray(listing.labels, np.int64),
        "directories": directories,
        "directory_starts": directory_starts,
        "directory_times": np.where(np.abs(started - times) < _RACY_NS, -1, times),
    }
    meta = {
        "root": root,
        "classes": [os.fsdecode(name) for name in listing.classes],
        "left_out": listing.skipped,
        "fingerprint": hashlib.sha256(b"\0".join(listing.paths)).hexdigest()[:16],
    }
    return content, meta


def _archive_in(root: str) -> str:
    """A hint that names an archive in a folder without images; empty if there is none."""
    names = sorted(name for name in os.listdir(root) if name.lower().endswith(_ARCHIVES))
    return f"; to read {names[0]}, name it: {os.path.join(root, names[0])}" if names else ""
