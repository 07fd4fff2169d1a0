"""Find the rank whose failure ended a job, and quote its error from its own log."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from patchmill.cluster.job.record import Job, rank_of_log

STARTED = re.compile(r"rank \d+ of \d+ on (\S+?),")  # first line after each start, by process.py
BLAMED = re.compile(r"error: rank \d+ ends because rank (\d+) failed")  # by ranks/failures.py
RANK_PREFIX = re.compile(r"^\[rank\d+\]: ")
TRACEBACK = "Traceback (most recent call last)"
# srun's line about a process that was killed: out of memory, or a crash in a library.
KILLED = re.compile(r"srun: error: (\S+): tasks? \d.*: (?!Exited|Terminated)")
MAX_LINES = 60


def describe(job: Job) -> list[str]:
    """Lines that name the failed rank and its error; empty where no log holds a failure."""
    logs = {rank_of_log(path): _since_last_start(path) for path in job.rank_logs()}
    lines = list(chain(*logs.values()))
    killed = next((line for line in lines if KILLED.match(line)), None)
    blamed = next((int(match[1]) for line in lines if (match := BLAMED.match(line))), None)
    failed = [rank for rank, log in logs.items() if _error(log)]
    first = blamed if blamed in failed else next(iter(failed), None)
    report = [killed.removeprefix("srun: error: ")] if killed else []
    if first is not None:
        started = STARTED.match(logs[first][0])
        where = f" on {started[1]}" if started else ""
        report.append(f"rank {first}{where} failed{'' if killed else ' first'}:")
        report += _error(logs[first])
    return report


def without_rank_prefix(line: str) -> str:
    """The line as Python writes it; torch puts `[rank1]: ` before each line of a traceback."""
    return RANK_PREFIX.sub("", line)


def _since_last_start(path: Path) -> list[str]:
    lines = [without_rank_prefix(line) for line in path.read_text(errors="replace").splitlines()]
    starts = [i for i, line in enumerate(lines) if STARTED.match(line)]
    return lines[starts[-1] :] if starts else lines


def _error(log: list[str]) -> list[str]:
    """The traceback, or else the one-line errors; empty if there are none."""
    for i, line in enumerate(log):
        if line.startswith(TRACEBACK):
            traceback = [line for line in log[i:] if not line.startswith(("srun:", "slurmstepd:"))]
            return traceback[-MAX_LINES:]
    return [line for line in log if line.startswith("error: ") and not BLAMED.match(line)]
