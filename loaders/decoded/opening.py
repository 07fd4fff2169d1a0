"""Open a loader's decoded cache: choose its file, check for free space, share and remove it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import weakref
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import locks, notes, places, records, spec
from patchmill.loaders.decoded.spec import CacheSpec
from patchmill.loaders.decoded.store import Store

if TYPE_CHECKING:
    from patchmill.loaders.sources import Source
    from patchmill.loaders.sources.stream.source import StreamSource

log = logging.getLogger("patchmill")

SUFFIX = ".decoded"

_AT_A_TIME = 1 << 20  # records
_DECODING = 1  # increment it when the decoder gives different pixels
_DECODERS = ("simplejpeg", "pillow")


def open_store(cache: str | CacheSpec | None, source: Source | StreamSource) -> Store | None:
    """Open the store that `cache=` requests; None without one, and for images kept on a GPU.

    Its file is shared by all its users, but the table of verified images is not: each loader checks
    for itself which samples have changed.
    """
    if cache is None:
        return None
    wanted = cache if isinstance(cache, CacheSpec) else spec.parse(cache)
    if source.sample_count is None:
        raise MillError(
            f"cache='{wanted}' keeps numbered images, but {source.name} is streamed: download the "
            "shards, or use cache=None"
        )
    if wanted.kind == "device" or not source.sample_count:
        return None
    folder = places.folder(wanted)
    key = store_key(source)  # type: ignore[arg-type]
    path = folder / f"{key}{places.host_part(folder)}{SUFFIX}"
    remove_left_over(folder, wanted)
    store = _open(path, source, wanted)  # type: ignore[arg-type]
    notes.note(wanted)
    return store


def store_key(source: Source) -> str:
    """Name of a source's store, a hash of its samples, their location and the decoders."""
    parts = [source.fingerprint, str(len(source)), source.where(0), source.where(len(source) - 1)]
    parts += [f"{name} {metadata.version(name)}" for name in _DECODERS]
    return hashlib.sha256("\0".join([str(_DECODING), *parts]).encode()).hexdigest()[:16]


def remove_left_over(folder: Path, wanted: CacheSpec) -> None:
    """Remove stores in RAM whose processes ended without removing them."""
    if wanted.kind == "ram":
        for path in stores_in(folder):
            if locks.remove_unused(path):
                log.info("removed %s, left behind by an earlier run", path)


def stores_in(folder: Path) -> list[Path]:
    """Stores in a folder, including those of which a killed process left only the lock file."""
    names = {
        path.with_suffix(SUFFIX) for end in (SUFFIX, ".lock") for path in folder.glob(f"*{end}")
    }
    return sorted(names)


def _open(path: Path, source: Source, wanted: CacheSpec) -> Store:
    places.check_free_space(wanted, path)
    with _errors(path, wanted), locks.locked(locks.lock_path(path)):
        file, used = _open_file(path, source, wanted.capacity)
        try:
            size = records.pixels_at(len(source)) + wanted.capacity
            if os.fstat(file).st_size < size:
                os.truncate(file, size)
            if used is not None:
                _allocate(file, records.pixels_at(len(source)))
                os.pwrite(file, used.to_bytes(8, "little"), records.USED_AT)
            store = Store(path, file, source, wanted)
            if not store.map_shows_writes():
                raise MillError(
                    f"cannot keep decoded images in {path.parent}: on its disk, memory maps do not "
                    "show what is written to files; use a folder on another disk"
                )
        except BaseException:
            os.close(file)
            raise
    weakref.finalize(store, _close, path, file, wanted.kind == "ram", os.getpid())
    return store


def _open_file(path: Path, source: Source, capacity: int) -> tuple[int, int | None]:
    """Open the store's file and become its user; also return the bytes of pixels in use.

    These are None if it has other users. They may differ from the header's if processes were
    killed or the machine lost power.
    """
    while True:
        file = os.open(path, locks.FLAGS, 0o600)
        alone = locks.take_share(file)
        header = records.read_header(os.pread(file, records.PAGE, 0))
        readable = header is not None and header.get("count") == len(source)
        if readable and not alone:
            return file, None
        if not alone:
            os.close(file)
            raise MillError(
                f"the decoded cache {path} is in use by another version of patchmill: use another "
                "folder"
            )
        used, dead = _space(file, len(source))
        if readable and (dead <= used // 2 or used <= capacity // 2):
            return file, used
        if not os.fstat(file).st_size:
            os.pwrite(file, records.pack_header(_header(source)), 0)
            return file, 0
        path.unlink()  # rather than truncated: processes that have it mapped keep their data
        os.close(file)


def _allocate(file: int, size: int) -> None:
    """Reserve disk space for the header and the records, or raise OSError.

    Reading an unallocated page of a map would kill the process if memory is full.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported by the disk
                raise


def _header(source: Source) -> dict[str, Any]:
    return {"count": len(source), "data": source.name[:1000]}


def _space(file: int, count: int) -> tuple[int, int]:
    """Bytes of pixels up to the last image's end, and how many of them belong to no image."""
    pixels = os.fstat(file).st_size - records.pixels_at(count)
    if pixels < 0:  # new, or truncated
        return 0, 0
    used = live = 0
    for start in range(0, count, _AT_A_TIME):
        ids = np.arange(start, min(start + _AT_A_TIME, count))
        size, at = (
            len(ids) * records.RECORD.itemsize,
            records.PAGE + start * records.RECORD.itemsize,
        )
        data = np.frombuffer(os.pread(file, size, at), records.RECORD)
        held = data[records.whole(data, ids, pixels)]
        sizes = held["height"].astype(np.int64) * held["width"] * 3
        used = max(used, records.aligned(int((held["offset"] + sizes).max(initial=0))))
        live += int(sizes.sum())
    return used, used - live


def _close(path: Path, file: int, temporary: bool, process: int) -> None:
    """End the use of a store; one in RAM is removed with its last user."""
    os.close(file)
    if temporary and os.getpid() == process:
        with contextlib.suppress(OSError, MillError):
            locks.remove_unused(path, timeout=0.2)


@contextlib.contextmanager
def _errors(path: Path, wanted: CacheSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise places.unusable(path.parent, wanted, error) from None
