"""Recognise errors about memory, threads or open files running out: libraries raise many kinds."""

from __future__ import annotations

import errno
import re

_MESSAGES = re.compile(
    r"can.?t allocate memory|cannot allocate memory|out of memory|bad_alloc|start new thread"
    r"|not enough memory|allocation failed"
    r"|resource temporarily unavailable",  # from C++ code that could not start a thread
    re.IGNORECASE,
)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_NOISE = re.compile(r"^\[enforce fail at [^]]*\]\s*(err == \d+)? ?\.?\s*")  # in torch's messages
_MOST = 200  # characters of a library's message


def shortage(error: BaseException) -> str | None:
    """Message of an error about memory, threads or files running out; None for any other error."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in (errno.ENOMEM, *OUT_OF_FILES) else None
    message = " ".join(_NOISE.sub("", str(error)).split())[:_MOST]
    if isinstance(error, MemoryError):
        return message or "an allocation failed"
    if isinstance(error, RuntimeError) and _MESSAGES.search(message):
        return message
    return None
