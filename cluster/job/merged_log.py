"""What all ranks of a job log, as one: log-JOB.out, in the order in which it was written.

A job's script runs this beside its ranks, where it begins, and tells it at the end how they ended:
python -m patchmill.cluster.job.merged_log FOLDER, where `FOLDER` holds the logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from patchmill.cluster.job import failures, record
from patchmill.cluster.job.follow import Lines
from patchmill.training.runtime import run_folder

LOOK = 2.0  # seconds


class Merging:
    """New lines of the ranks' logs, each with its time and, where there are several, its rank."""

    def __init__(self, folder: Path, id: str) -> None:
        self._job = record.Job(id, False, str(folder), "", time.time())
        self._path = record.merged(folder, id)
        self._lines, self._read = Lines(), self._path.with_name(f".{self._path.name}.read")
        with contextlib.suppress(OSError, ValueError):  # where a life before this one stopped
            self._lines.read = json.loads(self._read.read_text())
        self._path.touch()

    def look(self) -> None:
        now = time.strftime("%m-%d %H:%M:%S")
        paths = self._job.paths()
        found = [
            f"{now} [{record.rank(path)}] {line}" if len(paths) > 1 else f"{now} {line}"
            for path in paths
            for line in map(failures.unlabelled, self._lines.of(path))
        ]
        if found:
            self._write(found)
            self._read.write_text(json.dumps(self._lines.read))

    def end(self, code: int) -> None:
        """Of a life; one that failed is followed by why."""
        self.look()
        if code not in (0, run_folder.STOPPED):
            self._write(failures.told(self._job))

    def _write(self, lines: list[str]) -> None:
        with open(self._path, "a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def main() -> None:
    # What ends the job is told to ranks as well, and what they then say is to be read.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    merging = Merging(Path(sys.argv[1]), _job())
    while not select.select([sys.stdin], [], [], LOOK)[0]:
        merging.look()
    # Nothing is told where the script was killed.
    merging.end(int(sys.stdin.readline() or 0))


def _job() -> str:
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


if __name__ == "__main__":
    main()
