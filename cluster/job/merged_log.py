"""Merge the logs of all ranks of a job into one, log-JOB.out, in the order of writing.

The batch script runs this alongside the ranks, on its first node, and writes their exit code to its
stdin at the end: python -m patchmill.cluster.job.merged_log FOLDER, where FOLDER holds the logs.
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
from patchmill.cluster.job.follow import LogReader
from patchmill.training.runtime import run_folder

UPDATE_EVERY = 2.0  # seconds


class LogMerger:
    """Appends new lines of the ranks' logs, each with its time and, if there are several, rank."""

    def __init__(self, folder: Path, id: str) -> None:
        self._job = record.Job(id, False, str(folder), "", time.time())
        self._path = record.merged_log_path(folder, id)
        self._reader = LogReader()
        self._offsets_file = self._path.with_name(f".{self._path.name}.read")
        with contextlib.suppress(OSError, ValueError):  # resume where the last start stopped
            self._reader.offsets = json.loads(self._offsets_file.read_text())
        self._path.touch()

    def update(self) -> None:
        now = time.strftime("%m-%d %H:%M:%S")
        paths = self._job.rank_logs()
        lines = [
            f"{now} [{record.rank_of_log(path)}] {line}" if len(paths) > 1 else f"{now} {line}"
            for path in paths
            for line in map(failures.without_rank_prefix, self._reader.new_lines(path))
        ]
        if lines:
            self._append(lines)
            self._offsets_file.write_text(json.dumps(self._reader.offsets))

    def finish(self, code: int) -> None:
        """Append what is left, and after a failure its cause; `code` is the ranks' exit code."""
        self.update()
        if code not in (0, run_folder.STOPPED):
            self._append(failures.describe(self._job))

    def _append(self, lines: list[str]) -> None:
        with open(self._path, "a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def main() -> None:
    # Signals that end the job reach this process too: it must survive them to log what follows.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    merger = LogMerger(Path(sys.argv[1]), _job_id())
    while not select.select([sys.stdin], [], [], UPDATE_EVERY)[0]:
        merger.update()
    # stdin is empty if the script was killed.
    merger.finish(int(sys.stdin.readline() or 0))


def _job_id() -> str:
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


if __name__ == "__main__":
    main()
