"""Read the files of a data set: regular files only, and nobody is waited for.

Whoever opens a named pipe waits for its writer, perhaps for ever; a device has no end.
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
    """An open file, to be closed by the caller, and its status; OSError for what is no file."""
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
    """The content of an image's file; OSError, whose strerror says why, if it has none."""
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
    """The words for what is no regular file."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _no_file(kind: str) -> OSError:
    return OSError(errno.EINVAL, f"it is {kind}, not a file")
