"""Read the files of a data set: regular files only, so that a read never blocks.

Opening a named pipe blocks until it has a writer, perhaps for ever; a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat

MOST_BYTES = 1 << 30  # of an encoded image

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | bytes | os.PathLike[str]) -> tuple[int, os.stat_result]:
    """Open a file, which the caller must close; return it and its status, or raise OSError."""
    try:
        file = os.open(path, FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # sockets cannot be opened
            raise _no_file("a socket") from None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _no_file(kind_of(status))
    except OSError:
        os.close(file)
        raise
    return file, status


def read_file(path: str | bytes | os.PathLike[str]) -> bytes:
    """Read an image's file; OSError, with the reason as strerror, if that fails."""
    file, status = open_regular(path)
    try:
        size = status.st_size
        if size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"its {size} bytes are too many for an image")
        data = os.read(file, size)
        while len(data) < size and (more := os.read(file, size - len(data))):
            data += more
        return data
    finally:
        os.close(file)


def kind_of(status: os.stat_result) -> str:
    """Description of anything but a regular file, for messages."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _no_file(kind: str) -> OSError:
    return OSError(errno.EINVAL, f"it is {kind}, not a file")
