"""Whose failure ended a job, in the words of that rank's own log."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from patchmill.cluster.job.record import Job, rank

BEGINS = re.compile(r"rank \d+ of \d+ on (\S+?),")  # the first line of a life, of job.py
NAMED = re.compile(r"error: rank \d+ ends because rank (\d+) failed")  # by ranks/failures.py
LABEL = re.compile(r"^\[rank\d+\]: ")
TRACE = "Traceback (most recent call last)"
# What srun says of a process that was killed: out of memory, a crash in a library.
KILLED = re.compile(r"srun: error: (\S+): tasks? \d.*: (?!Exited|Terminated)")
MOST = 60  # lines


def told(job: Job) -> list[str]:
    """Empty where no log says that anything failed."""
    logs = {rank(path): _last_life(path) for path in job.paths()}
    killed = next((line for line in chain(*logs.values()) if KILLED.match(line)), None)
    named = next((int(it[1]) for line in chain(*logs.values()) if (it := NAMED.match(line))), None)
    failed = [it for it, log in logs.items() if _error(log)]
    first = named if named in failed else next(iter(failed), None)
    found = [killed.removeprefix("srun: error: ")] if killed else []
    if first is not None:
        where = f" on {it[1]}" if (it := BEGINS.match(logs[first][0])) else ""
        found += [f"rank {first}{where} failed{'' if killed else ' first'}:", *_error(logs[first])]
    return found


def unlabelled(line: str) -> str:
    """As Python writes it of an exception; torch puts the rank before each line."""
    return LABEL.sub("", line)


def _last_life(path: Path) -> list[str]:
    lines = [unlabelled(it) for it in path.read_text(errors="replace").splitlines()]
    begins = [place for place, line in enumerate(lines) if BEGINS.match(line)]
    return lines[begins[-1] :] if begins else lines


def _error(log: list[str]) -> list[str]:
    """A traceback, or what was put into a sentence."""
    for place, line in enumerate(log):
        if line.startswith(TRACE):
            said = [it for it in log[place:] if not it.startswith(("srun:", "slurmstepd:"))]
            return said[-MOST:]
    return [line for line in log if line.startswith("error: ") and not NAMED.match(line)]
