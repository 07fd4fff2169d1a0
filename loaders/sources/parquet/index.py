"""The index of a set of Parquet files: place and label of each image, and the class names.

Built once, in threads, and cached as one memory-mapped file of about 30 bytes per image; later
starts compare the size and modification time of each file. For files without compression, the
first start reads a few bytes per image; others are read whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import available_cores, map_in_threads
from patchmill.loaders.files import cache, columns
from patchmill.loaders.files.column_checks import are_below, has_columns, has_meta
from patchmill.loaders.files.columns import Columns
from patchmill.loaders.sources.lists import labels as label_numbers
from patchmill.loaders.sources.parquet import places, schema
from patchmill.loaders.sources.parquet.footer import Group
from patchmill.loaders.sources.parquet.schema import Fields

log = logging.getLogger("patchmill")

States = list[tuple[int, int]]  # size and modification time of each file

KIND = "parquet index 1"
_DTYPES = {
    "row_chunks": "<i8",
    "row_starts": "<i8",
    "row_sizes": "<i8",
    "chunk_offsets": "<i8",
    "chunk_stored": "<i8",
    "chunk_sizes": "<i8",
    "chunk_codecs": "|u1",
    "chunk_files": "<i4",
    "counts": "<i8",
}
_META = {"image": str, "classes": list, "fingerprint": str}
_MOST_BYTES = 1 << 31  # of a page: the format stores sizes in 32 bits
_MOST_THREADS = 4  # each may hold a compressed page of a hundred megabytes
_RACY_NS = 2_000_000_000  # a file this young may change again within the same timestamp


def open_index(
    name: str, paths: Sequence[str], states: States, image: str | None, label: str | None
) -> Columns:
    """Open or build the index of these files, in this order; MillError for bad files."""
    key = "\0".join([*paths, "", image or "", label or ""])
    file = None
    with contextlib.ExitStack() as stack:
        try:
            digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:16]
            file = cache.folder("parquet") / f"{digest}.index"
            stack.enter_context(cache.lock(file.with_suffix(".lock")))
            index = columns.find(file, KIND, valid=partial(_is_valid, states))
            if index and np.array_equal(index["states"], np.array(states)):
                return index
        except MillError as error:
            log.warning("cannot cache the index of %s, rebuilt at each start: %s", name, error)
        content, meta = _build(name, paths, states, image, label)
        if file:
            try:
                columns.write(file, KIND, content, meta)
                return columns.read(file, KIND)
            except (OSError, MillError) as error:
                log.warning("cannot cache the index of %s: %s", name, error)
        return Columns(meta, content)


def _is_valid(states: States, found: Columns) -> bool:
    """True if the index is valid for this number of files: every place can be looked up."""
    if "states" not in found.columns or not has_columns(found, _DTYPES, {"labels": "<i8"}):
        return False
    if not has_meta(found, _META):
        return False
    rows = [found[name] for name in ("row_chunks", "row_starts", "row_sizes")]
    rows += [found["labels"]] if "labels" in found.columns else []
    chunks = [found[name] for name in _DTYPES if name.startswith("chunk_")]
    counts, count, known = found["counts"], len(found["row_sizes"]), len(found["chunk_offsets"])
    return (
        all(len(column) == count for column in rows)
        and all(len(column) == known for column in chunks)
        and len(counts) == len(states)
        and are_below(counts, count + 1)
        and int(counts.sum()) == count
        and are_below(found["row_chunks"] + 1, known + 1)  # -1 without an image
        and are_below(found["row_sizes"] + 1, _MOST_BYTES)
        and are_below(found["row_starts"] + 1, 2**62)
        and are_below(found["chunk_offsets"], 2**62)
        and are_below(found["chunk_stored"], _MOST_BYTES)
        and are_below(found["chunk_sizes"], _MOST_BYTES)
        and are_below(found["chunk_codecs"], len(places.CODECS))
        and are_below(found["chunk_files"], len(states))
    )


def _build(
    name: str, paths: Sequence[str], states: States, image: str | None, label: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    started = time.time_ns()
    files = [schema.open_file(path) for path in paths]
    opened = [file for file, _ in files]
    fields = schema.choose(name, opened[0].schema_arrow, image, label)
    tasks = [(i, group) for i, (_, groups) in enumerate(files) for group in range(len(groups))]
    counts = [sum(group.rows for group in groups) for _, groups in files]
    rows = sum(counts)
    threads = min(_MOST_THREADS, available_cores())
    with track(f"indexing {name}", rows) as advance:

        def locate(task: tuple[int, int]) -> places.Places:
            located = _locate(*files[task[0]], paths[task[0]], task[1], fields)
            advance(sum(map(len, located.rows)))
            return located

        located = list(map_in_threads(locate, tasks, threads))
    content = _joined(located, [i for i, _ in tasks])
    classes, labels = _labels(name, opened, fields)
    found = len(content["row_sizes"])
    if found != rows or (labels is not None and len(labels) != rows):
        raise MillError(f"{name} is damaged: it claims {rows:,} rows and holds {found:,}")
    if labels is not None:
        content["labels"] = labels
    content["counts"] = np.array(counts, np.int64)
    known = np.array(states, np.int64).reshape(-1, 2)
    known[np.abs(started - known[:, 1]) < _RACY_NS, 1] = -1
    content["states"] = known
    return content, {
        "image": fields.image,
        "classes": classes,
        "fingerprint": _fingerprint(paths, states, content, classes),
    }


def _locate(
    opened: Any, groups: list[Group], path: str, group: int, fields: Fields
) -> places.Places:
    column = schema.leaf(opened, path, fields)
    level = opened.schema.column(column).max_definition_level
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return places.locate(file, group, groups[group], column, level)
    finally:
        os.close(file)


def _joined(located: list[places.Places], files: list[int]) -> dict[str, np.ndarray]:
    chunks, rows, owners, before = [], [], [], 0
    for file, one in zip(files, located, strict=True):
        table = np.concatenate([np.empty((0, 3), np.int64), *one.rows])
        table[:, 0] += before
        rows.append(table)
        chunks.append(np.array(one.chunks, np.int64).reshape(-1, 4))
        owners.append(np.full(len(one.chunks), file, np.int32))
        before += len(one.chunks)
    table = np.concatenate([np.empty((0, 3), np.int64), *rows])
    chunk = np.concatenate([np.empty((0, 4), np.int64), *chunks])
    return {
        "row_chunks": table[:, 0].copy(),
        "row_starts": table[:, 1].copy(),
        "row_sizes": table[:, 2].copy(),
        "chunk_offsets": chunk[:, 0].copy(),
        "chunk_stored": chunk[:, 1].copy(),
        "chunk_sizes": chunk[:, 2].copy(),
        "chunk_codecs": chunk[:, 3].astype(np.uint8),
        "chunk_files": np.concatenate([np.empty(0, np.int32), *owners]),
    }


def _labels(name: str, opened: list[Any], fields: Fields) -> tuple[list[str], np.ndarray | None]:
    if fields.label is None:
        return [], None
    values: list[Any] = []
    for file in opened:
        with schema.readable(f"the column {fields.label} of {name}"):
            values += file.read(columns=[fields.label]).column(0).to_pylist()
    if all(value is None or value == -1 for value in values):
        return [], None
    if all(value is None or isinstance(value, int) for value in values):
        numbers = np.array([-1 if value is None else value for value in values], np.int64)
        return fields.classes or label_numbers.names_of(numbers), numbers
    if not all(isinstance(value, int | str) for value in values):
        raise MillError(f"the column {fields.label} of {name} must hold numbers or names as labels")
    return label_numbers.numbered(name, list(map(str, values)))


def _fingerprint(
    paths: Sequence[str], states: States, content: dict[str, np.ndarray], classes: list[str]
) -> str:
    names = [os.path.basename(path) for path in paths]
    digest = hashlib.sha256(repr((names, [size for size, _ in states], classes)).encode())
    for column in ("row_starts", "row_sizes", "labels"):
        if column in content:
            digest.update(content[column].tobytes())
    return digest.hexdigest()[:16]
