"""Errors by which a machine has run out of memory, threads or files: libraries raise many kinds."""

from __future__ import annotations

import errno
import re

_SAID = re.compile(
    r"can.?t allocate memory|cannot allocate memory|out of memory|bad_alloc|start new thread"
    r"|not enough memory|allocation failed"
    r"|resource temporarily unavailable",  # of C++ that could start no thread
    re.IGNORECASE,
)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_WASTE = re.compile(r"^\[enforce fail at [^]]*\]\s*(err == \d+)? ?\.?\s*")  # in torch's words
_MOST = 200  # characters of a library's words


def shortage(error: BaseException) -> str | None:
    """What an error says of memory, threads or files that ran out; None for any other error."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in (errno.ENOMEM, *OUT_OF_FILES) else None
    words = " ".join(_WASTE.sub("", str(error)).split())[:_MOST]
    if isinstance(error, MemoryError):
        return words or "an allocation failed"
    if isinstance(error, RuntimeError) and _SAID.search(words):
        return words
    return None
