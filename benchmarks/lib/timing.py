"""Interleaved measurements, their summaries, and waiting for an idle process.

Contenders take turns, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.1
_IDLE_LOAD = 0.15  # of one core, over one poll
_TIMEOUT_SECONDS = 30.0  # of one wait
_TOTAL_SECONDS = 60.0  # of all waits that ended with the process still busy
_in_vain = 0.0  # seconds of those


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of one contender's rounds (minimum and maximum of up to three)."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def interleave(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each contender once per round; the one that starts rotates from round to round."""
    names = list(turns)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(turns[name]())
    return values


def summary(values: Sequence[float]) -> Summary:
    if len(values) < 2:
        return Summary(values[0], values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4)
    median = statistics.median(values)
    return Summary(median, min(max(low, min(values)), median), max(min(high, max(values)), median))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Summary:
    """Ratios per round, which are robust to temporary slowdowns of the machine."""
    return summary([a / b for a, b in zip(numerators, denominators, strict=True)])


def wait_until_idle() -> None:
    """Wait until this process and its workers have filled their queues and use no CPU.

    The total wait for a process that never goes idle is limited; stderr then says so once.
    """
    global _in_vain
    began = time.monotonic()
    deadline = began + min(_TIMEOUT_SECONDS, _TOTAL_SECONDS - _in_vain)
    idle_polls = 0
    while idle_polls < 2:
        if time.monotonic() >= deadline:
            _give_up(time.monotonic() - began)
            return
        before = cpu_seconds()
        time.sleep(_POLL_SECONDS)
        idle = cpu_seconds() - before < _IDLE_LOAD * _POLL_SECONDS
        idle_polls = idle_polls + 1 if idle else 0


def _give_up(seconds: float) -> None:
    global _in_vain
    before, _in_vain = _in_vain, _in_vain + seconds
    if before < _TOTAL_SECONDS <= _in_vain:
        print(
            f"this process was busy before its turns for {_in_vain:.0f} s: the next ones start "
            "immediately, and may be measured alongside its own work",
            file=sys.stderr,
        )


def cpu_seconds() -> float:
    """CPU time of this process and, on Linux, of all its descendants."""
    ticks = sum(map(_clock_ticks, _descendants(os.getpid())))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(word) for word in children.read_text().split()]
        except OSError:  # a thread that has ended
            continue
        for child in pids:
            yield child
            yield from _descendants(child)


def _clock_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime


def synchronize_gpu() -> None:
    """Wait for all queued work of the current GPU, if CUDA is in use."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.synchronize()
