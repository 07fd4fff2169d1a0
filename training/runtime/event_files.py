"""TensorBoard event files, written in the calling thread, so that errors are raised there.

torch's SummaryWriter writes in a background thread, which prints a traceback when the disk is full.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NUMBERS = itertools.count()


class EventFile:
    """One event file, flushed after each write.

    TensorBoard ignores steps from `purge` on in earlier files of the folder.
    """

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._log = event_pb2.Event, event_pb2.SessionLog
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in name order.
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._file = open(folder / f"events.out.tfevents.{name}", "wb")
        self._writer = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if purge is not None:
            self._write(step=purge, session_log=self._log(status=self._log.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step, by their tags."""
        scalars = [{"tag": tag, "simple_value": value} for tag, value in values.items()]
        self._write(step=step, summary={"value": scalars})

    def close(self) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        event = self._event(wall_time=time.time(), **fields)
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            raise
