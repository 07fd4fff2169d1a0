"""Folders for stores of decoded images, and the space available in them."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded.spec import FORMS, CacheSpec, size_text
from patchmill.loaders.files import host

SHARED_MEMORY = Path("/dev/shm")
_LOCAL = ("ext", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "apfs", "ramfs", "bcachefs")


def ram_folder() -> Path:
    """The folder of this user's stores in RAM; may not exist."""
    return SHARED_MEMORY / f"patchmill-{os.getuid()}"


def folder(wanted: CacheSpec) -> Path:
    """The folder of a cache's store, created if it is missing."""
    path = wanted.folder if wanted.folder is not None else ram_folder()
    if wanted.folder is None and not SHARED_MEMORY.is_dir():
        raise MillError(
            f"cache='{wanted}' needs {SHARED_MEMORY}, which does not exist: use "
            f"cache='disk:FOLDER:{size_text(wanted.capacity)}'"
        )
    try:
        path.mkdir(mode=0o700, parents=wanted.folder is not None, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise unusable(path, wanted, error) from None
    if wanted.folder is None and (
        not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077
    ):
        raise MillError(f"{path} is not private to you: remove it, or use cache='disk:…'")
    return path.resolve()


def host_part(path: Path) -> str:
    """Suffix of the file's name on disks shared by machines, which cannot share a memory map."""
    if host.file_system(path).startswith(_LOCAL):
        return ""
    return "-" + re.sub(r"[^\w.-]", "_", socket.gethostname())


def check_free_space(wanted: CacheSpec, path: Path) -> None:
    """Raise a MillError unless the store at `path`, which may exist, can grow to its capacity."""
    free, stored, where = free_bytes(path.parent), bytes_on_disk(path), f"{path.parent} has"
    if wanted.kind == "ram" or host.file_system(path.parent) == "tmpfs":
        memory = host.free_memory()
        if memory is not None and memory < free:
            free, where = memory, "this machine, or its container, has"
    if wanted.capacity > free + stored:
        smaller = wanted.resized(max((free + stored) * 8 // 10, 1))
        raise MillError(
            f"cache='{wanted}' is larger than the free space: {where} {size_text(free + stored)} "
            f"free; use cache='{smaller}' or less: caching a part of the images helps, too"
        )


def free_bytes(path: Path) -> int:
    """Free bytes on a folder's disk."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def bytes_on_disk(path: Path) -> int:
    """Bytes that a store occupies, fewer than its file's length; 0 if there is none."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def unusable(path: Path, wanted: CacheSpec, error: OSError) -> MillError:
    return MillError(
        f"cannot keep decoded images in {path}: {error.strerror or error}; write {FORMS} with a "
        "writable folder"
    )
