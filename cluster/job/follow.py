"""Print a job's logs while they are written."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from patchmill.cluster.job.record import Job
from patchmill.loaders.common.printed import say

READ_EVERY = 0.5  # seconds
POLL_EVERY = 5.0  # seconds between queries to SLURM, whose controller many users share


class LogReader:
    """Reads the complete lines appended to log files since the last call."""

    def __init__(self) -> None:
        self.offsets: dict[str, int] = {}  # file name -> bytes already read

    def new_lines(self, path: Path) -> list[str]:
        begin = self.offsets.get(path.name, 0)
        if path.stat().st_size <= begin:
            return []
        with open(path, "rb") as file:
            file.seek(begin)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self.offsets[path.name] = begin + len(complete)
        # Progress bars redraw a line after \r: keep the last drawing.
        lines = complete.decode(errors="replace").split("\n")[:-1]
        return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def follow(
    job: Job,
    is_alive: Callable[[], bool],
    poll_every: float = POLL_EVERY,
    reader: LogReader | None = None,
    before_read: Callable[[], None] = lambda: None,
) -> None:
    """Print new log lines until the job ends; `before_read` is called before each read."""
    reader, polled, alive = reader or LogReader(), 0.0, True
    while alive:
        if time.monotonic() - polled > poll_every:
            alive, polled = is_alive(), time.monotonic()
        before_read()
        print_new(job, reader)
        if alive:
            time.sleep(READ_EVERY)


def print_new(job: Job, reader: LogReader, last: int | None = None) -> None:
    """Print new lines; at most the `last` ones of each log."""
    paths = job.merged_logs()
    for path in paths:
        array_task = f"[{path.stem.rpartition('_')[2]}] " if len(paths) > 1 else ""
        for line in deque(reader.new_lines(path), last):
            say(f"{array_task}{line}")
