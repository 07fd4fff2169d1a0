"""The index of a shard set: one file, concatenated from the indexes of its shards.

Built at the first start and cached; later starts open it and only compare the size and modification
time of each shard. An index next to a shard is used if there is one; other shards are scanned once.
The columns are those of `index`, concatenated over the shards, with labels of as many bytes as they
need; `starts` holds the first row of each shard, and `checked` whether its rows have checksums.
Large columns are read a piece at a time, as samples are looked up; if a piece is damaged, the index
is rebuilt (`repair`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.files import cache, columns
from patchmill.loaders.files.columns import Columns, Parts
from patchmill.loaders.sources.shards import index as shard_index
from patchmill.loaders.sources.shards import (
    index_checks,
    label_list,
    repair,
    set_index_checks,
    set_labels,
)
from patchmill.loaders.sources.shards.summary import Load, ShardSummary, summarise

log = logging.getLogger("patchmill")

KIND = "shards index 3"
_LAZILY = tuple(shard_index.DTYPES)
SCANNED = "scanned shard 2"  # a cached `shard index`, with folders

_THREADS = 16  # on network disks each shard costs round trips
_STATS_PER_TASK = 64  # shards that a thread stats per task
_RACY_NS = 2_000_000_000  # a tar this young may change again within the same timestamp
_NAMED = 3

ShardState = tuple[int, int, int]  # size, mtime, mtime of the index next to it (0: none)


def open_set_index(paths: Sequence[str]) -> Columns:
    """Open or build the index of these shards, in this order; MillError for bad shards."""
    paths = _resolve_folders(paths)
    again, states = partial(open_set_index, paths), _states(paths)
    listed = label_list.find(paths[0]) if len(paths) == 1 else None
    if listed and (state := _state(str(listed))):
        states.append(state)
    with contextlib.ExitStack() as stack:
        folder = None
        try:
            folder = cache.folder("shards")
            file = folder / f"{_key(paths)}.set"
            if index := _find(file, paths, states):
                return index
            stack.enter_context(cache.lock(file.with_suffix(".lock")))
            if index := _find(file, paths, states):  # another process has built it meanwhile
                return index
        except MillError as error:
            log.warning(
                "cannot cache the index of the shards, which will be rebuilt at each start: %s",
                error,
            )
        content, meta = _assemble(paths, states, listed, folder)
        if folder:
            try:
                columns.write(file, KIND, content, meta)
                return repair.watched(columns.read(file, KIND, lazily=_LAZILY), file, again)
            except (OSError, MillError) as error:
                log.warning("cannot cache the index of %d shards: %s", len(paths), error)
                content, meta = _assemble(paths, states, listed, folder)  # its parts are used up
        joined = {n: c.joined() if isinstance(c, Parts) else c for n, c in content.items()}
        return Columns(meta, joined)


def _resolve_folders(paths: Sequence[str]) -> list[str]:
    """Resolve links in the folders, once per folder: thousands of shards share a few folders."""
    split = [os.path.split(path) for path in paths]
    folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in split}}
    return [os.path.join(folders[folder], name) for folder, name in split]


def _key(paths: Sequence[str]) -> str:
    return hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()[:16]


def _find(file: Path, paths: Sequence[str], states: Sequence[ShardState]) -> Columns | None:
    index = columns.find(file, KIND, lazily=_LAZILY, valid=set_index_checks.is_valid)
    if index is None or not np.array_equal(index["states"], np.array(states)):
        return None
    names, starts = columns.join([os.fsencode(path) for path in paths])
    same = np.array_equal(index["paths"], names) and np.array_equal(index["path_starts"], starts)
    return repair.watched(index, file, partial(open_set_index, paths)) if same else None


def _states(paths: Sequence[str]) -> list[ShardState]:
    size = _STATS_PER_TASK
    chunks = (paths[first : first + size] for first in range(0, len(paths), size))
    states = [
        state
        for chunk in map_in_threads(lambda chunk: list(map(_state, chunk)), chunks, _THREADS)
        for state in chunk
    ]
    missing = [path for path, state in zip(paths, states, strict=True) if state is None]
    if missing:
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        raise MillError(
            f"{len(missing)} of {len(paths)} shards cannot be found: {named}; "
            "fetch the missing ones, or name only the shards that exist"
        )
    return [state for state in states if state]


def _state(path: str) -> ShardState | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    try:
        index_time = os.stat(shard_index.index_path(path)).st_mtime_ns
    except OSError:
        index_time = 0
    return status.st_size, status.st_mtime_ns, index_time


# -------------------------------------------------------------------------------------- assembling


def _assemble(
    paths: Sequence[str], states: Sequence[ShardState], listed: Path | None, folder: Path | None
) -> tuple[dict[str, np.ndarray | Parts], dict[str, Any]]:
    started = time.time_ns()
    with track("indexing shards", len(paths)) as advance:

        def summarised(number: int) -> ShardSummary:
            found = _find_index(paths[number], states[number], folder)
            shard = summarise(paths[number], *found)
            advance(1)
            return shard

        shards = list(map_in_threads(summarised, range(len(paths)), _THREADS))
    counts = [shard.count for shard in shards]
    if not sum(counts):
        raise MillError(f"there are no images in the {len(paths)} shards {paths[0]} ...")
    classes, labels = set_labels.of_set(shards, listed)
    _warn_of_imageless(shards)
    recorded = [(-1, -1, -1) if started - state[1] < _RACY_NS else state for state in states]
    names, name_starts = columns.join([os.fsencode(path) for path in paths])
    content: dict[str, np.ndarray | Parts] = {
        name: Parts(np.dtype(dtype), sum(counts), _pieces(shards, name, dtype))
        for name, dtype in shard_index.DTYPES.items()
        if name != "labels" and any(name in shard.columns for shard in shards)
    }
    if labels:
        content["labels"] = labels
    content |= {
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "checked": np.array(["checksums" in shard.columns for shard in shards], np.uint8),
        "paths": names,
        "path_starts": name_starts,
        "states": np.array(recorded, np.int64),
        "tar_states": np.array([state[:2] for state in states[: len(paths)]], np.int64),
    }
    digest = hashlib.sha256("".join(shard.meta["fingerprint"] for shard in shards).encode())
    return content, {"fingerprint": digest.hexdigest()[:16], "classes": classes}


def _find_index(path: str, state: ShardState, folder: Path | None) -> tuple[Columns, Load]:
    """The shard's index, and a function to reread it: next to the shard, cached, or new."""
    tar_bytes, tar_mtime_ns, has_index = state
    if has_index:
        try:
            found = shard_index.read_index(path)
            return found, partial(_read, Path(shard_index.index_path(path)), shard_index.KIND)
        except MillError as error:
            log.warning("%s (reading the shard's headers instead)", error)
    file = folder / f"{_key([path])}.shard" if folder else None
    cached = columns.find(file, SCANNED, valid=index_checks.is_valid) if file else None
    indexed = (cached.meta["tar_bytes"], cached.meta["tar_mtime_ns"]) if cached else None
    if cached and file and indexed == (tar_bytes, tar_mtime_ns):
        return cached, partial(_read, file, SCANNED)
    started = time.time_ns()
    contents = shard_index.scan_shard(path)
    racy = started - tar_mtime_ns < _RACY_NS
    index = shard_index.build_index(path, contents, tar_bytes, -1 if racy else tar_mtime_ns)
    if file:
        with contextlib.suppress(OSError):  # `open_set_index` warns about the cache
            columns.write(file, SCANNED, index.columns, index.meta)
            return index, partial(_read, file, SCANNED)
    return index, lambda name: index[name]


def _read(path: Path, kind: str, name: str) -> np.ndarray:
    return columns.read(path, kind, only=(name,))[name]


def _pieces(shards: Sequence[ShardSummary], name: str, dtype: str) -> Iterator[np.ndarray]:
    """One column, shard by shard; zeros for shards that lack it."""
    for shard in shards:
        yield shard.load(name) if name in shard.columns else np.zeros(shard.count, dtype)


def _warn_of_imageless(shards: Sequence[ShardSummary]) -> None:
    if total := sum(shard.meta["imageless"] for shard in shards):
        first = next(shard.meta["first_imageless"] for shard in shards if shard.meta["imageless"])
        log.warning("%d samples without an image are skipped, the first is %r", total, first)
