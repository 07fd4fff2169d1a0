"""The ledger of a run's unreadable samples, which are replaced, recorded and limited in number."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from patchmill.loaders.files.writing import atomic_path, unique_name

log = logging.getLogger("patchmill")

LEAST_LIMIT, LIMIT_SHARE = 10, 1000  # bad samples allowed: 1 in 1000, but at least 10
_Entry = dict[str, object]
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Ledger:
    """A run's bad samples, as a file of JSON lines: the first one starts a new file.

    A line that a full disk or a crash truncated is terminated before the next one is appended;
    readers skip lines that are not JSON. If several loaders share a path, each appends those of its
    own samples that the file lacks.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.limit = LEAST_LIMIT
        self.allow(count)
        self._bad: dict[int, _Entry] = {}
        self._unwritten: list[_Entry] = []  # not in the file yet
        self._created, self._file = False, -1
        self._close: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, id: int) -> bool:
        return id in self._bad

    def allow(self, count: int) -> None:
        """Raise the limit for a data set, or the part of it seen so far, of `count` samples."""
        self.limit = max(self.limit, count // LIMIT_SHARE)

    def record(self, id: int, where: str, reason: str) -> None:
        """Record a bad sample; raise a MillError once there are more than the limit."""
        with self._lock:
            if id in self._bad:
                return
            self._bad[id] = entry = {"id": id, "where": where, "reason": reason}
            self._unwritten.append(entry)
            self._write()
            bad = len(self._bad)
        where, reason = printable(where), printable(reason)
        log.warning("sample %d was replaced: %s: %s (listed in %s)", id, where, reason, self.path)
        if bad > self.limit:
            raise MillError(
                f"{bad} samples could not be read, more than the {self.limit} that are tolerated; "
                f"the latest is {where} ({reason}); see {self.path}"
            )

    def _write(self) -> None:
        """Write all entries that the file lacks, including those of an earlier failed write."""
        try:
            if not self._is_current():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._open()
            _append(self._file, self._unwritten)
        except OSError as error:
            raise MillError(
                f"cannot write the ledger of bad samples {self.path}: {error.strerror}; "
                "free some space or pass another path as ledger="
            ) from None
        self._unwritten.clear()

    def _is_current(self) -> bool:
        """True if the open file is still the one at the path."""
        try:
            return self._file >= 0 and os.path.samestat(os.fstat(self._file), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        """Start a new file; later, open the one that another loader has put in its place."""
        if self._created:
            self._switch_to(self.path)
            return
        with atomic_path(self.path, unique_name(self.path)) as partial:
            self._switch_to(partial)
        self._created = True

    def _switch_to(self, path: Path) -> None:
        """Append to this file from now on; it lists none of the bad samples yet."""
        file = os.open(path, _FLAGS, 0o666)
        if self._close is not None:
            self._close()
        self._file, self._close = file, weakref.finalize(self, os.close, file)
        self._unwritten = list(self._bad.values())


def _append(file: int, entries: Sequence[_Entry]) -> None:
    """Append lines, after terminating a truncated last line."""
    if not entries:
        return
    data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        data = b"\n" + data
    if os.write(file, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
