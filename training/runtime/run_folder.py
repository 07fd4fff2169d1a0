"""The folder of a run: who may write to it, and what it tells those who look."""

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
from patchmill.loaders.common.files import hold

STATUS, LOCK = "status.json", ".lock"
STOPPED = 75  # the exit code of a run that can go on; EX_TEMPFAIL of sysexits.h: try again
BEAT = 5.0  # seconds between heartbeats


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other processes from training into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MillError(
            f"cannot write the run's folder {folder}: {error.strerror}; choose another, as out=DIR"
        ) from None
    try:
        hold(file, folder / LOCK)
        yield
    finally:
        os.close(file)


class Status:
    """status.json: a heartbeat of the run, for whoever watches it from elsewhere.

    Its state is running, and then done, stopped (by a signal) or failed; a run that was killed
    is running, and its heart does not beat.
    """

    def __init__(self, folder: Path, **fields: Any) -> None:
        self._path, before = folder / STATUS, read(folder)
        self._fields = {
            "state": "running",
            **fields,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "restarts": before["restarts"] + 1 if "restarts" in before else 0,
        }
        self._write()

    def beat(self, **fields: Any) -> None:
        self._fields |= fields
        if time.time() - self._fields["time"] > BEAT:
            self._write()

    def end(self, state: str, **fields: Any) -> None:
        self._fields |= fields | {"state": state}
        self._write()

    def _write(self) -> None:
        self._fields["time"] = time.time()
        half = self._path.with_name(f".{STATUS}.part")
        with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
            half.write_text(json.dumps(self._fields, indent=1) + "\n")
            half.replace(self._path)


def read(folder: Path) -> dict[str, Any]:
    """The run's status; empty where there is none."""
    try:
        found = json.loads((folder / STATUS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
