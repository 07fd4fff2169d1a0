"""List the stores of decoded images on this machine, how full they are, and their users."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.loaders.decoded import locks, places, records
from patchmill.loaders.decoded.opening import stores_in


@dataclass(frozen=True)
class Listed:
    """A store as `patchmill cache` shows it."""

    path: Path
    data: str  # the user's name for the images
    images: int
    samples: int
    bytes: int  # on disk
    used: bool
    users: list[int]  # process ids, except those in other containers


def listed(folders: Sequence[Path]) -> list[Listed]:
    """The stores in some folders; a missing folder has none."""
    return [entry for folder in folders for path in stores_in(folder) if (entry := _read(path))]


def _read(path: Path) -> Listed | None:
    """Read a store's entry; None if it is gone, or only its lock file is left."""
    try:
        with open(path, "rb") as file:
            header = records.read_header(file.read(records.PAGE)) or {}
            count = int(header.get("count", 0))
            data = file.read(count * records.RECORD.itemsize)
            inode = os.fstat(file.fileno()).st_ino
    except OSError:
        return None
    whole = np.frombuffer(data[: len(data) // records.RECORD.itemsize * records.RECORD.itemsize])
    images = int(np.count_nonzero(whole.view(records.RECORD)["height"]))
    name = str(header.get("data", "a store of another version of patchmill"))
    with locks.locked(locks.lock_path(path)):
        used = locks.is_used(path)
    users = _lock_holders(inode) if used else []
    return Listed(path, name, images, count, places.bytes_on_disk(path), used, users)


def _lock_holders(inode: int) -> list[int]:
    """Processes that hold a lock on a file with this inode, as far as the system reports them."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    locks_on_it = [line.split() for line in lines if " FLOCK " in line and f":{inode} " in line]
    return sorted({int(pid) for _, _, _, _, pid, *_ in locks_on_it if int(pid) > 0})
