"""An LRU cache of open files, for random reads from more files than a process may hold open."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from patchmill.loaders.files.regular_files import open_regular

_MOST = 4096


class OpenFiles:
    """LRU cache of open files, by number: `path(file)` names one; any thread may use it.

    `check` receives the status of each file when it is opened, and may reject it with an OSError.
    """

    def __init__(
        self,
        path: Callable[[int], bytes],
        check: Callable[[int, os.stat_result], None],
        limit: int | None = None,
    ) -> None:
        self._path, self._check, self._limit = path, check, limit or _default_limit()
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, file: int) -> OpenFile:
        """The open file; it stays open at least as long as the returned object is referenced."""
        with self._lock:
            if cached := self._open.get(file):
                self._open.move_to_end(file)
                return cached
        opened = OpenFile(self._path(file))
        self._check(file, os.fstat(opened.number))
        with self._lock:
            self._open[file] = opened
            dropped = self._open.popitem(last=False) if len(self._open) > self._limit else None
        del dropped  # closed here, outside the lock
        return opened


class OpenFile:
    """A file descriptor (`number`), closed with the last reference to this object."""

    __slots__ = ("number",)

    def __init__(self, path: bytes) -> None:
        self.number = -1
        self.number, _ = open_regular(path)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def _default_limit() -> int:
    """Half of the number of files that this process may open."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        return 128
    return _MOST if soft == resource.RLIM_INFINITY else min(max(soft // 2, 1), _MOST)
