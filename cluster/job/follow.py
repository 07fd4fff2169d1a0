"""Logs as they are written: new whole lines of several files, each with where it is from."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from patchmill.cluster.job.record import Job

LOOK = 0.5  # seconds
ASK = 5.0  # seconds between questions to SLURM, whose controller many people ask


class Lines:
    """What is new in files that grow."""

    def __init__(self) -> None:
        self.read: dict[str, int] = {}  # name of a file -> how many bytes are not new any more

    def of(self, path: Path) -> list[str]:
        """Those that are whole."""
        begin = self.read.get(path.name, 0)
        if path.stat().st_size <= begin:
            return []
        with open(path, "rb") as file:
            file.seek(begin)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self.read[path.name] = begin + len(whole)
        # What redraws a line of a terminal ends it by \r: the last drawing is what it says.
        lines = whole.decode(errors="replace").split("\n")[:-1]
        return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def until(
    job: Job,
    lives: Callable[[], bool],
    ask: float = ASK,
    lines: Lines | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Prints what the job logs, as long as it lives; `look` is called before each look."""
    lines, asked, alive = lines or Lines(), 0.0, True
    while alive:
        if time.monotonic() - asked > ask:
            alive, asked = lives(), time.monotonic()
        look()
        show(job, lines)
        if alive:
            time.sleep(LOOK)


def show(job: Job, lines: Lines, most: int | None = None) -> None:
    """Prints what is new; `most` is how many lines of each log, at most."""
    paths = job.merged()
    for path in paths:
        label = f"[{path.stem.rpartition('_')[2]}] " if len(paths) > 1 else ""  # of an array's task
        for line in deque(lines.of(path), most):
            print(f"{label}{line}")
    sys.stdout.flush()
