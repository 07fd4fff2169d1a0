"""Contenders take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK = 0.1  # seconds between two looks at the processor's clock
_QUIET = 0.15  # of one core, over one look
_PATIENCE = 30.0  # seconds


@dataclass(frozen=True)
class Summary:
    """Of one contender's rounds: the median, and the middle half of them (all, if only three)."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        return (self.high - self.low) / self.median if self.median else 0.0


def interleave(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One measurement of each in every round; each round begins with another one."""
    names = list(turns)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(turns[name]())
    return found


def summary(values: Sequence[float]) -> Summary:
    if len(values) < 2:
        return Summary(values[0], values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4)
    median = statistics.median(values)
    return Summary(median, min(max(low, min(values)), median), max(min(high, max(values)), median))


def ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """Round by round, so that a machine that slows down for a while changes nothing."""
    return summary([a / b for a, b in zip(above, below, strict=True)])


def wait_until_quiet() -> None:
    """Return when this process and its workers have nothing left to do ahead of being asked."""
    give_up = time.monotonic() + _PATIENCE
    quiet = 0
    while quiet < 2 and time.monotonic() < give_up:
        before = processor_seconds()
        time.sleep(_LOOK)
        quiet = quiet + 1 if processor_seconds() - before < _QUIET * _LOOK else 0


def processor_seconds() -> float:
    """Of this process and its workers, where the system tells of them (Linux)."""
    workers = [process.pid for process in multiprocessing.active_children()]
    return time.process_time() + sum(map(_ticks, workers)) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int | None) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # in the program and in the kernel for it


def finish_gpu() -> None:
    """Wait until the current GPU has done all that it was asked for, and every GPU copy."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.synchronize()
