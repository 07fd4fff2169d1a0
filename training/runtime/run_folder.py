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
from patchmill.loaders.files.writing import lock_output, reason, write_atomic
from patchmill.training.runtime import record_files
from patchmill.training.runtime.record_files import is_number

STATUS, LOCK = "status.json", ".lock"
TEXTS = ("state", "host", "machine", "versions")  # fields of status.json, by type
COUNTS = ("step", "steps", "restarts", "pid")
NUMBERS = (
    "began",
    "checkpoint_s",
    "epoch",
    "eta_s",
    "evaluation_s",
    "images_per_s",
    "loss",
    "reached",
    "time",
)
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
STOPPED = 75  # exit code of a run that can be resumed: EX_TEMPFAIL of sysexits.h
BEAT = 5.0  # seconds between heartbeats


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Create the folder, and keep other processes from training into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, _LOCK_FLAGS, 0o644)
    except OSError as error:
        raise MillError(
            f"cannot write the run's folder {folder}: {reason(error)}; fix the cause, or choose "
            "another with out=DIR"
        ) from None
    try:
        lock_output(file, folder / LOCK)
        yield
    finally:
        os.close(file)


class Status:
    """Heartbeat of a run in status.json.

    Its state is running, and at the end done, stopped (by a signal) or failed. A killed run stays
    "running", with no further heartbeat.
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
        """Update fields, and write them unless the last heartbeat is too recent."""
        self._fields |= fields
        if time.time() - self._fields["time"] > BEAT:
            self._write()

    def end(self, state: str, **fields: Any) -> None:
        self._fields |= fields | {"state": state}
        self._write()

    def _write(self) -> None:
        self._fields["time"] = time.time()
        with contextlib.suppress(OSError):  # the checkpoint reports a full disk
            write_atomic(self._path, json.dumps(self._fields, indent=1) + "\n")


def read_status(folder: Path) -> dict[str, Any]:
    """Read status.json without fields of a wrong type; empty if it cannot be read."""
    try:
        content = record_files.content(folder / STATUS)
    except OSError:
        return {}
    return parse_status(content)


def parse_status(content: bytes) -> dict[str, Any]:
    """Parse a status.json, and drop fields of a wrong type."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: value for name, value in fields.items() if _is_valid(name, value)}


def _is_valid(name: str, value: Any) -> bool:
    if name in TEXTS:
        return isinstance(value, str)
    if name in COUNTS:
        return isinstance(value, int) and is_number(value)
    return is_number(value) if name in NUMBERS else True
