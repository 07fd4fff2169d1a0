"""The index of a data set of shards: one memory-mapped file, put together from the shards' own.

Made at the first start and kept in the cache; later starts map it and only compare each shard's
size and modification time. Where a shard has an index beside it, that is used; the headers of the
others are gone through once. The columns are those of `shard_index`, of all shards one after
another; `starts` says where each shard's rows begin, `checked` whether they have checksums.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from patchmill.loaders.common import cache, columns
from patchmill.loaders.common.columns import Columns, Parts
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.progress import track
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.sources.shards import index as shard_index

log = logging.getLogger("patchmill")

KIND = "shards index 1"

_THREADS = 16  # on network disks each shard costs round trips
_STATS = 64  # shards that a thread looks at in one go
_RACY_NS = 2_000_000_000  # a tar that changed this lately may change again at the same time
_MOST_CLASSES = 1 << 20
_SHOWN = 3

State = tuple[int, int, int]  # of a shard: size, modification time, that of the index beside it


def open_set_index(paths: Sequence[str]) -> Columns:
    """The index of these shards, in this order; a MillError names what is missing or damaged."""
    paths = _real(paths)
    states = _states(paths)
    with contextlib.ExitStack() as stack:
        folder = None
        try:
            folder = cache.folder("shards")
            file = folder / f"{_key(paths)}.set"
            if index := _find(file, states):
                return index
            stack.enter_context(cache.lock(file.with_suffix(".lock")))
            if index := _find(file, states):  # made by another process meanwhile
                return index
        except MillError as error:
            log.warning("the shards will be indexed anew at each start: %s", error)
        content, meta = _assemble(paths, states, folder)
        if folder:
            try:
                columns.write(file, KIND, content, meta)
                return columns.read(file, KIND)
            except (OSError, MillError) as error:
                log.warning("the index of %d shards is not kept: %s", len(paths), error)
        joined = {n: c.joined() if isinstance(c, Parts) else c for n, c in content.items()}
        return Columns(meta, joined)


def _real(paths: Sequence[str]) -> list[str]:
    """With the folders' links followed, each once: thousands of shards lie in few folders."""
    split = [os.path.split(path) for path in paths]
    folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in split}}
    return [os.path.join(folders[folder], name) for folder, name in split]


def _key(paths: Sequence[str]) -> str:
    return hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()[:16]


def _find(file: Path, states: Sequence[State]) -> Columns | None:
    index = columns.find(file, KIND)
    return index if index and np.array_equal(index["states"], np.array(states)) else None


def _states(paths: Sequence[str]) -> list[State]:
    chunks = (paths[first : first + _STATS] for first in range(0, len(paths), _STATS))
    found = [
        state
        for chunk in map_in_threads(lambda some: list(map(_state, some)), chunks, _THREADS)
        for state in chunk
    ]
    missing = [path for path, state in zip(paths, found, strict=True) if state is None]
    if missing:
        named = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise MillError(
            f"{len(missing)} of {len(paths)} shards cannot be found: {named}; "
            "fetch what is missing, or name only the shards that are there"
        )
    return [state for state in found if state]


def _state(path: str) -> State | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    try:
        beside = os.stat(shard_index.index_path(path)).st_mtime_ns
    except OSError:
        beside = 0
    return status.st_size, status.st_mtime_ns, beside


# --------------------------------------------------------------------------- from the shards' own


@dataclass(frozen=True)
class _Shard:
    """What is known of a shard's index, which is only mapped while it is read: files are many."""

    path: str
    meta: dict[str, Any]
    count: int  # of samples
    names: frozenset[str]  # of the columns
    labels: tuple[int, int]  # least and largest
    load: Callable[[], Columns]


def _assemble(
    paths: Sequence[str], states: Sequence[State], folder: Path | None
) -> tuple[dict[str, np.ndarray | Parts], dict[str, Any]]:
    started = time.time_ns()
    with track("indexing shards", len(paths)) as advance:

        def one(number: int) -> _Shard:
            shard = _describe(paths[number], _loader(paths[number], states[number], folder))
            advance(1)
            return shard

        shards = list(map_in_threads(one, range(len(paths)), _THREADS))
    counts = [shard.count for shard in shards]
    if not sum(counts):
        raise MillError(f"there are no images in the {len(paths)} shards {paths[0]} ...")
    _check_labels(shards)
    _warn_of_imageless(shards)
    is_racy = [started - state[1] < _RACY_NS for state in states]
    kept = [(-1, -1, -1) if racy else state for racy, state in zip(is_racy, states, strict=True)]
    names, name_starts = columns.join([os.fsencode(path) for path in paths])
    content: dict[str, np.ndarray | Parts] = {
        name: Parts(np.dtype(dtype), sum(counts), _pieces(shards, name, dtype))
        for name, dtype in shard_index.DTYPES.items()
        if any(name in shard.names for shard in shards)
    }
    content |= {
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "checked": np.array(["checksums" in shard.names for shard in shards], np.uint8),
        "paths": names,
        "path_starts": name_starts,
        "states": np.array(kept, np.int64),
        "tar_states": np.array([state[:2] for state in states], np.int64),
    }
    whole = hashlib.sha256("".join(shard.meta["fingerprint"] for shard in shards).encode())
    return content, {"fingerprint": whole.hexdigest()[:16], "classes": _classes(shards)}


def _loader(path: str, state: State, folder: Path | None) -> Callable[[], Columns]:
    """What maps the shard's index: the one beside it, the one in the cache, or a new one."""
    tar_bytes, tar_mtime_ns, has_beside = state
    if has_beside:
        try:
            shard_index.read_index(path)
            return partial(columns.read, Path(shard_index.index_path(path)), shard_index.KIND)
        except MillError as error:
            log.warning("%s (the shard's headers are read instead)", error)
    file = folder / f"{_key([path])}.shard" if folder else None
    found = columns.find(file, shard_index.KIND) if file else None
    good_for = (found.meta["tar_bytes"], found.meta["tar_mtime_ns"]) if found else None
    if file and good_for == (tar_bytes, tar_mtime_ns):
        return partial(columns.read, file, shard_index.KIND)
    started = time.time_ns()
    contents = shard_index.scan_shard(path)
    racy = started - tar_mtime_ns < _RACY_NS
    index = shard_index.build_index(path, contents, tar_bytes, -1 if racy else tar_mtime_ns)
    if file:
        with contextlib.suppress(OSError):  # that the whole set's index is not kept is said there
            columns.write(file, shard_index.KIND, index.columns, index.meta)
            return partial(columns.read, file, shard_index.KIND)
    return lambda: index


def _describe(path: str, load: Callable[[], Columns]) -> _Shard:
    index = load()
    labels = index.columns.get("labels", np.zeros(1, np.int64))
    span = int(labels.min()), int(labels.max())
    count = len(index["offsets"])
    return _Shard(path, index.meta, count, frozenset(index.columns), span, load)


def _pieces(shards: Sequence[_Shard], name: str, dtype: str) -> Iterator[np.ndarray]:
    """The column of each shard, or zeros where it has none."""
    for shard in shards:
        yield shard.load()[name] if name in shard.names else np.zeros(shard.count, dtype)


def _check_labels(shards: Sequence[_Shard]) -> None:
    filled = [shard for shard in shards if shard.count]
    without = [shard for shard in filled if "labels" not in shard.names]
    if without and len(without) < len(filled):
        raise MillError(
            f"the samples of {len(without)} of {len(filled)} shards have no labels, first those of "
            f"{without[0].path}: label all samples, or none"
        )


def _classes(shards: Sequence[_Shard]) -> list[str]:
    """The names that tools left in the indexes, else the numbers, as far as they make sense."""
    spans = [shard.labels for shard in shards if "labels" in shard.names]
    if not spans:
        return []
    least, most = min(low for low, _ in spans), max(high for _, high in spans)
    named = {tuple(shard.meta["classes"]) for shard in shards} - {()}
    if len(named) > 1:
        raise MillError(
            f"the shards {shards[0].path} ... were made with different lists of classes"
        )
    for names in named:
        if least >= 0 and most < len(names):
            return list(names)
    return [str(number) for number in range(most + 1)] if 0 <= most < _MOST_CLASSES else []


def _warn_of_imageless(shards: Sequence[_Shard]) -> None:
    if total := sum(shard.meta["imageless"] for shard in shards):
        first = next(shard.meta["first_imageless"] for shard in shards if shard.meta["imageless"])
        log.warning("%d samples without an image are left out, first %r", total, first)
