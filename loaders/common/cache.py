"""The cache folder: indexes and generated data that later runs reuse."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from patchmill.loaders.common.errors import MillError


def root() -> Path:
    """`$PATCHMILL_CACHE`, else `patchmill` in the user's cache folder."""
    if chosen := os.environ.get("PATCHMILL_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "patchmill"
    return Path("~/.cache/patchmill").expanduser()


def folder(name: str) -> Path:
    """A sub-folder of the cache, created if it is missing."""
    path = root() / name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from None
    return path


def unusable(path: Path, error: OSError) -> MillError:
    """Error for a cache that cannot be written: full, read-only, not a folder."""
    return MillError(
        f"cannot write to the cache {path}: {error.strerror or error}; "
        "make room or point PATCHMILL_CACHE to another folder"
    )


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file lock, so that a node's ranks do not all generate the same file.

    Where file locks do not work, every process proceeds: files are written atomically, so that is
    safe.
    """
    try:
        file = open(path, "w")
    except OSError as error:
        raise unusable(path.parent, error) from None
    with file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
