"""File locks of stores: one marks the processes that use a store, one serialises layout changes.

Each user of a store holds a shared lock on its file, which the system releases when the process
ends, for whatever reason. So a store that can be locked exclusively has no users left.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from patchmill.loaders.common.errors import MillError

FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PAUSE = 0.01  # seconds between attempts


def lock_path(path: Path) -> Path:
    """The file that is locked while a store is opened, extended or removed."""
    return path.with_suffix(".lock")


@contextlib.contextmanager
def locked(path: Path, timeout: float | None = None) -> Iterator[bool]:
    """Hold the lock file at `path`, which is created if it is missing.

    Yields False, without the lock, if it cannot be acquired within `timeout` seconds.
    """
    file = _lock_file(path, timeout)
    try:
        yield file is not None
    finally:
        if file is not None:
            _flock(file, "LOCK_UN")  # closing is not enough: a forked child may have a copy
            os.close(file)


def take_share(file: int) -> bool:
    """Become a user of an open store; True if it has no other. The lock file must be held."""
    alone = _is_free(file)
    _flock(file, "LOCK_SH")
    return alone


def is_used(path: Path) -> bool:
    """Check if any process uses the store at `path`."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not _is_free(file)
    finally:
        os.close(file)


def remove_unused(path: Path, timeout: float | None = None) -> bool:
    """Remove a store unless a process uses it; return True if it was removed.

    `timeout`, in seconds, limits the wait for the lock: the garbage collector may call this in a
    thread that holds the lock itself.
    """
    with locked(lock_path(path), timeout) as held:
        if not held or is_used(path):
            return False
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(FileNotFoundError):
            lock_path(path).unlink()
        return True


def _lock_file(path: Path, timeout: float | None) -> int | None:
    """The open lock file, locked; None if that takes longer than `timeout`."""
    began = time.monotonic()
    while True:
        file = os.open(path, FLAGS, 0o600)
        try:
            if timeout is None:
                _flock(file, "LOCK_EX")
            elif not _is_free(file):
                os.close(file)
                if time.monotonic() - began > timeout:
                    return None
                time.sleep(_PAUSE)
                continue
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # removed while this process waited
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_free(file: int) -> bool:
    try:
        _flock(file, "LOCK_EX", "LOCK_NB")
    except BlockingIOError:
        return False
    return True


def _flock(file: int, *names: str) -> None:
    try:
        import fcntl

        flags = 0
        for name in names:
            flags |= getattr(fcntl, name)
        fcntl.flock(file, flags)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MillError(
            f"the decoded cache needs file locks, which do not work in its folder ({reason}): use "
            "another folder, or cache=None"
        ) from None
