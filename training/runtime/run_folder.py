"""A run's folder: its lock, and status.json for programs that watch the run."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.files import lock_output, write_atomic

STATUS, LOCK = "status.json", ".lock"
STOPPED = 75  # exit code of a run that can be resumed; EX_TEMPFAIL of sysexits.h: try again
BEAT = 5.0  # seconds between heartbeats


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from training into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MillError(
            f"cannot write the run's folder {folder}: {error.strerror}; choose another, as out=DIR"
        ) from None
    try:
        lock_output(file, folder / LOCK)
        yield
    finally:
        os.close(file)


class Status:
    """Heartbeat of a run in status.json.

    Its state is running, and at the end done, stopped (by a signal) or failed. A run that was
    killed stays running, and its heartbeat stops.
    """

    def __init__(self, folder: Path, **fields: Any) -> None:
        self._path, before = folder / STATUS, read_status(folder)
        self._fields = {
            "state": "running",
            **fields,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "restarts": before["restarts"] + 1 if "restarts" in before else 0,
        }
        self._write()

    def beat(self, **fields: Any) -> None:
        """Update fields, and write them if the last heartbeat is long enough ago."""
        self._fields |= fields
        if time.time() - self._fields["time"] > BEAT:
            self._write()

    def end(self, state: str, **fields: Any) -> None:
        self._fields |= fields | {"state": state}
        self._write()

    def _write(self) -> None:
        self._fields["time"] = time.time()
        with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
            write_atomic(self._path, json.dumps(self._fields, indent=1) + "\n")


def read_status(folder: Path) -> dict[str, Any]:
    """Contents of status.json; empty where there is none."""
    try:
        status = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
