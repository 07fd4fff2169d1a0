"""The ledger: a run's unreadable samples, which are replaced, recorded and limited in number."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import printable
from patchmill.loaders.files.writing import unique_name, write_atomic

log = logging.getLogger("patchmill")

LEAST_LIMIT, LIMIT_SHARE = 10, 1000  # bad samples allowed: 1 in 1000, but at least 10


class Ledger:
    """A run's bad samples, as a file of JSON lines that is rewritten atomically for each."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.limit = LEAST_LIMIT
        self.allow(count)
        self._bad: dict[int, dict[str, object]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, id: int) -> bool:
        return id in self._bad

    def allow(self, count: int) -> None:
        """Raise the limit for a data set, or the part of it seen so far, of `count` samples."""
        self.limit = max(self.limit, count // LIMIT_SHARE)

    def record(self, id: int, where: str, reason: str) -> None:
        """Record a bad sample; a MillError once there are more than the limit."""
        with self._lock:
            if id in self._bad:
                return
            self._bad[id] = {"id": id, "where": where, "reason": reason}
            self._write()
            bad = len(self._bad)
        where, reason = printable(where), printable(reason)
        log.warning("sample %d is replaced: %s: %s (listed in %s)", id, where, reason, self.path)
        if bad > self.limit:
            raise MillError(
                f"{bad} samples could not be read, more than the {self.limit} that are tolerated; "
                f"the latest is {where} ({reason}); see {self.path}"
            )

    def _write(self) -> None:
        lines = "".join(json.dumps(entry) + "\n" for entry in self._bad.values())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, lines, unique_name(self.path))
        except OSError as error:
            raise MillError(
                f"cannot write the ledger of bad samples {self.path}: {error.strerror}; "
                "make room or pass another path as ledger="
            ) from None
