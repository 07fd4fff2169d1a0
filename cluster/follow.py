"""The logs of all ranks as one, as they are written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from patchmill.cluster.jobs import Job

LOOK = 0.5  # seconds
ASK = 5.0  # seconds between questions to SLURM, whose controller many people ask


class Logs:
    """Whole lines that are new, each with its rank where there are several."""

    def __init__(self, job: Job, out: TextIO | None = None) -> None:
        self._job, self._out = job, out or sys.stdout
        self._read: dict[Path, int] = {}

    def show(self, last: int | None = None) -> None:
        """`last` is how many lines of each rank, at most."""
        paths = self._job.paths()
        for rank, path in enumerate(paths):
            lines = self._new(path)
            for line in lines if last is None else lines[-last:]:
                label = f"[{rank}] " if len(paths) > 1 else ""
                print(f"{label}{line}", file=self._out)
        self._out.flush()

    def _new(self, path: Path) -> list[str]:
        with open(path, "rb") as file:
            file.seek(self._read.get(path, 0))
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(whole)
        # What redraws a line of a terminal ends it by \r: the last drawing is what it says.
        lines = whole.decode(errors="replace").split("\n")[:-1]
        return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def until(job: Job, lives: Callable[[], bool], ask: float = ASK, logs: Logs | None = None) -> None:
    """Prints what the job logs, as long as it lives."""
    logs, asked, alive = logs or Logs(job), 0.0, True
    while alive:
        if time.monotonic() - asked > ask:
            alive, asked = lives(), time.monotonic()
        logs.show()
        if alive:
            time.sleep(LOOK)
