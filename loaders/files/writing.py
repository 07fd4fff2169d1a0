"""Write files atomically, lock outputs, and turn a failed write into a one-sentence error."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from patchmill.loaders.common.errors import MillError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TOKEN = re.compile(r"\.[0-9a-f]{8}(?=\.(part|tmp)$)")  # in temporary names by `unique_name`


@contextlib.contextmanager
def atomic_path(path: Path, temporary: str | None = None, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, or remove it.

    Readers see the old file or the new one, never part of one. `durable` flushes to disk before the
    rename. The default temporary name, `.NAME.part`, is for files with one writer at a time: the
    next one overwrites a file left by a killed process. Concurrent writers use `unique_name(path)`;
    the next writer removes files left under such names.
    """
    partial = path.with_name(temporary or f".{path.name}.part")
    if partial.is_symlink():  # which someone else may have pointed to any file
        partial.unlink()
    token = _TOKEN.search(partial.name)
    if token:
        _remove_dead(partial, token)
    try:
        with _locked(partial) if token else contextlib.nullcontext():
            yield partial
            if durable:
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def unique_name(path: Path) -> str:
    """A temporary name for one of several processes that may write a file concurrently."""
    return f".{path.name}.{secrets.token_hex(4)}.part"


def write_atomic(
    path: Path, content: str | bytes, temporary: str | None = None, durable: bool = False
) -> None:
    """Write a whole file atomically, text as UTF-8; raise OSError if it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path, temporary, durable) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Create a temporary file and hold a lock on it, which ends if the process is killed."""
    while True:
        file = os.open(partial, _FLAGS, 0o666)
        try:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, partial):  # removed before it was locked
                continue
            yield
            return
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def remove_left_over(path: Path) -> None:
    """Remove files that killed writers of `path` left under names by `unique_name`."""
    name = unique_name(path)
    token = _TOKEN.search(name)
    assert token is not None
    _remove_dead(path.with_name(name), token)


def _remove_dead(partial: Path, token: re.Match[str]) -> None:
    """Remove files named like `partial`, except for the token, that no process has locked."""
    before, after = partial.name[: token.start()], partial.name[token.end() :]
    name = f"{glob.escape(before)}.{'[0-9a-f]' * 8}{after}"
    for path in partial.parent.glob(name):
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)


def lock_output(file: int, path: Path) -> None:
    """Lock an open file for the process that writes an output, until the process ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MillError(
            f"another process is writing this output now (it holds {path}): wait for it, or stop it"
        ) from None
    except OSError:  # file locks do not work on some network disks: proceed without
        return


def reason(error: OSError) -> str:
    """Describe a disk error, for a message: a full disk is reported as such."""
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    text = error.strerror or str(error)
    return f"{full[error.errno]} ({text})" if error.errno in full else text


@contextlib.contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turn an OSError in the body, which writes `out`, into a MillError."""
    try:
        yield
    except OSError as error:
        raise MillError(
            f"cannot write {out}: {reason(error)}; free some space or fix the cause, then run the "
            "same command again: it continues where it stopped"
        ) from None
