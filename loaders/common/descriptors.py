"""Many files to read from at any place, of which only those used last are kept open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

_MOST = 4096


class Descriptors:
    """The files that were used last stay open; safe from many threads at once.

    `check` sees the status of each file that is opened, and may refuse it with an OSError.
    """

    def __init__(
        self,
        path: Callable[[int], bytes],
        check: Callable[[int, os.stat_result], None],
        limit: int | None = None,
    ) -> None:
        self._path, self._check, self._limit = path, check, limit or _default_limit()
        self._open: OrderedDict[int, Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, file: int) -> Descriptor:
        """Keep what this returns as long as its number is used: that keeps it open."""
        with self._lock:
            if found := self._open.get(file):
                self._open.move_to_end(file)
                return found
        opened = Descriptor(self._path(file))
        self._check(file, os.fstat(opened.number))
        with self._lock:
            self._open[file] = opened
            dropped = self._open.popitem(last=False) if len(self._open) > self._limit else None
        del dropped  # closed here, where nobody waits for it
        return opened


class Descriptor:
    """An open file, closed when nobody holds it any more."""

    __slots__ = ("number",)

    def __init__(self, path: bytes) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def _default_limit() -> int:
    """Half of what this process may open."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        return 128
    return _MOST if soft == resource.RLIM_INFINITY else min(max(soft // 2, 1), _MOST)
