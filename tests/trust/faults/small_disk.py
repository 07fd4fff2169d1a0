"""A small in-memory disk, mounted for one child and its children, if that is allowed."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

from trust.faults import disk_faults

PAGE = 4096
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000  # of unshare
_REMOUNT, _PRIVATE, _RECURSIVE = 32, 1 << 18, 1 << 14  # of mount


@functools.cache
def allowed() -> bool:
    """True if this user may mount such a disk."""
    return not disk_faults.run(lambda: _unshare() or "").failed


def run(
    folder: Path, few: int, enough: int, on_few: Callable[[], str], on_enough: Callable[[], str]
) -> str:
    """Run one function on a disk of few pages in `folder`, then another with enough pages.

    Each returns a problem, or an empty string; the second runs only if the first returns none.
    """

    def work() -> str:
        _unshare()
        _mount(folder, few)
        problem = on_few()
        _mount(folder, enough, _REMOUNT)
        return problem or on_enough()

    return disk_faults.run(work).output


def _unshare() -> None:
    """Switch to a private mount namespace."""
    user, group = os.getuid(), os.getgid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_MOUNTS) and library.unshare(_NEW_MOUNTS | _NEW_USERS):
        raise OSError(ctypes.get_errno(), "unshare")
    if user != os.getuid():
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if library.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None):
        raise OSError(ctypes.get_errno(), "mount")


def _mount(folder: Path, pages: int, flags: int = 0) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    size = b"size=%d" % (pages * PAGE)
    if library.mount(b"none", os.fsencode(folder), b"tmpfs", flags, size):
        raise OSError(ctypes.get_errno(), "mount")
