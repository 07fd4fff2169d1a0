"""Write files atomically, lock outputs, and turn a failed write into one sentence."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from patchmill.loaders.common.errors import MillError


@contextlib.contextmanager
def atomic_path(path: Path, temporary: str | None = None, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Readers see the old file or the new one, never part of one. `durable` flushes to the disk before
    the rename. The default temporary name, `.NAME.part`, is for files with one writer: its
    successor overwrites what a killed process leaves. Several writers take `unique_name(path)`.
    """
    partial = path.with_name(temporary or f".{path.name}.part")
    try:
        yield partial
        if durable:
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def unique_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.part"


def write_atomic(
    path: Path, content: str | bytes, temporary: str | None = None, durable: bool = False
) -> None:
    """Write a whole file atomically, text as UTF-8; raise OSError if it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path, temporary, durable) as partial:
        partial.write_bytes(data)


def lock_output(file: int, path: Path) -> None:
    """Lock an open file for the process that writes an output; released when it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MillError(
            f"another process is writing this output now (it holds {path}): wait for it, or end it"
        ) from None
    except OSError:  # file locks do not work on some network disks: proceed without
        return


@contextlib.contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turn an OSError in the body, which writes `out`, into a MillError."""
    try:
        yield
    except OSError as error:
        raise MillError(
            f"cannot write {out}: {error.strerror or error}; make room or fix that, then run the "
            "same command again: it continues where it stopped"
        ) from None
