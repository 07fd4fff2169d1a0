"""The cache folder: indexes and generated data that later runs reuse."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from patchmill.kernels.compiled_code import root
from patchmill.loaders.common.errors import MillError

__all__ = ["folder", "lock", "root", "unusable"]

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def folder(name: str) -> Path:
    """A sub-folder of the cache; a missing cache is created for this user only."""
    path = root() / name
    try:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from None
    return path


def unusable(path: Path, error: OSError) -> MillError:
    """Error for a cache that cannot be written: full, read-only, not a folder."""
    return MillError(
        f"cannot write to the cache {path}: {error.strerror or error}; "
        "free some space or point PATCHMILL_CACHE to another folder"
    )


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file lock, so that a node's ranks do not all generate the same file.

    If file locks do not work, every process proceeds, which is safe because files are written
    atomically. Nothing is written to the lock file, and a link in its place is not followed.
    """
    try:
        file = open(os.open(path, _LOCK_FLAGS, 0o666))
    except OSError as error:
        raise unusable(path, error) from None
    with file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
