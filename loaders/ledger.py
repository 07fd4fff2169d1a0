"""Bad samples: recorded, counted, limited. One never kills a run, and never hides."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from pathlib import Path

from patchmill.loaders.common.errors import MillError

log = logging.getLogger("patchmill")

LEAST_LIMIT, LIMIT_SHARE = 10, 1000  # of a data set, 1 in 1000 may be bad, and 10 always may


class Ledger:
    """The list of a run's bad samples, as JSON lines, rewritten whole so that it is never half."""

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
        """The data set, or as much as has been seen of it, has so many samples."""
        self.limit = max(self.limit, count // LIMIT_SHARE)

    def record(self, id: int, where: str, reason: str) -> None:
        """Note a bad sample; a MillError once there are more than the limit."""
        with self._lock:
            if id in self._bad:
                return
            self._bad[id] = {"id": id, "where": where, "reason": reason}
            self._write()
            bad = len(self._bad)
        log.warning("sample %d is replaced: %s: %s (listed in %s)", id, where, reason, self.path)
        if bad > self.limit:
            raise MillError(
                f"{bad} samples could not be read, more than the {self.limit} that are tolerated; "
                f"the latest is {where} ({reason}); see {self.path}"
            )

    def _write(self) -> None:
        half = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            half.write_text("".join(json.dumps(entry) + "\n" for entry in self._bad.values()))
            half.replace(self.path)
        except OSError as error:
            raise MillError(
                f"cannot write the ledger of bad samples {self.path}: {error.strerror}; "
                "make room or pass another path as ledger="
            ) from None
