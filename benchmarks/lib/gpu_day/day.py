"""Run the steps one after another within the time budget, regardless of failures."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from patchmill.benchmarks.lib import process_group
from patchmill.benchmarks.lib.gpu_day import record
from patchmill.benchmarks.lib.gpu_day.here import Here
from patchmill.benchmarks.lib.gpu_day.outcomes import FILE
from patchmill.benchmarks.lib.gpu_day.record import Entry
from patchmill.benchmarks.lib.gpu_day.step import Step
from patchmill.benchmarks.lib.gpu_day.steps import ROOT

Say = Callable[[str], None]

LAST = 5.0  # seconds reserved for the page


@dataclass(frozen=True)
class Day:
    """The steps to run, and their limits."""

    steps: Sequence[Step]
    here: Here
    out: Path
    minutes: float
    rehearse: bool = False
    executable: str = sys.executable

    @property
    def about(self) -> dict[str, Any]:
        return {
            "gpu": self.here.gpu,
            "cores": self.here.cores,
            "minutes": self.minutes,
            "rehearsal": self.rehearse,
            "date": time.strftime("%Y-%m-%d"),
        }


def plan(day: Day) -> list[tuple[Step, Entry]]:
    """Plan of a run: state `held` means that a step would run within its limit."""
    left, planned = 60 * day.minutes - LAST, []
    for step in day.steps:
        estimate = step.estimate(day.here.cores)
        why = day.here.lacks(step, day.rehearse)
        fits = estimate <= left
        state: record.State = "left out" if why else "held" if fits else "not reached"
        limit = min(step.limit(day.here.cores), max(left, 0))
        planned.append((step, Entry(state, why, limit=limit, estimate=estimate)))
        left -= estimate if state == "held" else 0
    return planned


def run(
    day: Day, entries: dict[str, Entry], say: Say, now: Callable[[], float] = time.monotonic
) -> bool:
    """Run the steps without a final entry; True unless Ctrl-C ended it.

    Each step's entry is added to `entries`, which are written after each step.
    """
    end = now() + 60 * day.minutes - LAST
    todo = [step for step in day.steps if _unfinished(entries.get(step.name), day.rehearse)]
    signal.signal(signal.SIGTERM, _as_interrupt)
    for step in todo:
        try:
            entries[step.name] = entry = _one(day, step, end - now(), say)
        except KeyboardInterrupt:
            entries[step.name] = Entry("interrupted", "Ctrl-C, or a signal", rehearsed=day.rehearse)
            _fill(todo, entries, "the run was interrupted before it")
            record.write(day.out, entries, day.about)
            return False
        record.write(day.out, entries, day.about)
        say(line(step, entry))
    return True


def line(step: Step, entry: Entry) -> str:
    took = f"{entry.seconds:.0f} s" if entry.seconds else ""
    return f"{entry.state:<12} {step.name:<16} {took:>6}  {entry.why}".rstrip()


def environment(step: Step, day: Day) -> dict[str, str]:
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none is needed, and those of some machines fail
        FILE: str(step.result(day.out)),
    }


def _one(day: Day, step: Step, left: float, say: Say) -> Entry:
    estimate = step.estimate(day.here.cores)
    if why := day.here.lacks(step, day.rehearse):
        return Entry("left out", why, estimate=round(estimate), rehearsed=day.rehearse)
    if left < (0 if day.rehearse else estimate):
        why = f"takes about {estimate:.0f} s, and {max(left, 0):.0f} s were left"
        return Entry("not reached", why, estimate=round(estimate), rehearsed=day.rehearse)
    limit = left if day.rehearse else min(step.limit(day.here.cores), left)
    say(f"{'running':<12} {step.name:<16} {step.title}, at most {limit:.0f} s")
    log = day.out / f"{step.name}.log"
    for old in (log, step.result(day.out)):
        old.unlink(missing_ok=True)
    arguments = step.command(day.out, day.here.cores, day.rehearse)
    command = [*step.under, day.executable, *arguments]
    try:
        ended = process_group.run(command, environment(step, day), ROOT, log, limit)
        entry = record.judge(step, ended, day.out, limit, estimate)
    except OSError as error:
        entry = Entry("failed", f"cannot be started: {error}", estimate=round(estimate))
    return _rehearsed(entry) if day.rehearse else entry


def _rehearsed(entry: Entry) -> Entry:
    """In a rehearsal, tests that are found and skipped count as held."""
    skipped = entry.state == "left out" and entry.tests.get("skipped")
    return replace(entry, state="held" if skipped else entry.state, rehearsed=True)


def _unfinished(entry: Entry | None, rehearse: bool) -> bool:
    if entry is None or entry.state not in record.FINAL:
        return True
    return entry.rehearsed and not rehearse


def _fill(steps: Iterable[Step], entries: dict[str, Entry], why: str) -> None:
    for step in steps:
        entries.setdefault(step.name, Entry("not reached", why))


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
