"""Progress of long-running work: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from patchmill.loaders.common.printed import printable

log = logging.getLogger("patchmill")

Advance = Callable[[int], None]

_QUIET_SECONDS = 1.0
_LOG_SECONDS = 10.0


@contextlib.contextmanager
def track(what: str, total: int | None = None, done: int = 0, unit: str = "") -> Iterator[Advance]:
    """Yield `advance(n)`, which any thread may call: `with track("listing", 100) as advance`.

    `done` items of the total were done in an earlier run; with a `unit`, the rate is shown.
    """
    with (_bar if sys.stderr.isatty() else _lines)(printable(what), total, done, unit) as advance:
        yield advance


class _Pace:
    """Item counter with rate and remaining time."""

    def __init__(self, total: int | None, done: int, unit: str) -> None:
        self.done = self._done_before = done
        self._total, self._unit, self._started = total, unit, time.monotonic()

    def rate(self) -> str:
        """`2,100 images/s`; empty without a unit."""
        return f"{self._per_second():,.0f} {self._unit}/s" if self._unit else ""

    def time_left(self) -> str:
        """`0:12:30 left`; empty if unknown."""
        rate = self._per_second()
        if self._total is None or not rate:
            return ""
        return f"{timedelta(seconds=round((self._total - self.done) / rate))} left"

    def _per_second(self) -> float:
        return (self.done - self._done_before) / max(time.monotonic() - self._started, 1e-9)


@contextlib.contextmanager
def _bar(what: str, total: int | None, done: int, unit: str) -> Iterator[Advance]:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),  # names may look like markup
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task(what, total=total, completed=done, rate="")
    pace, lock = _Pace(total, done, unit), threading.Lock()

    def advance(n: int) -> None:
        with lock:
            pace.done += n
        bar.update(task, advance=n, rate=pace.rate())

    timer = threading.Timer(_QUIET_SECONDS, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


@contextlib.contextmanager
def _lines(what: str, total: int | None, done: int, unit: str) -> Iterator[Advance]:
    lock, due = threading.Lock(), time.monotonic() + _QUIET_SECONDS
    pace = _Pace(total, done, unit)

    def advance(n: int) -> None:
        nonlocal due
        with lock:
            pace.done += n
            if time.monotonic() > due:
                due = time.monotonic() + _LOG_SECONDS
                count = f"{pace.done:,}" + (f" of {total:,}" if total else "")
                parts = (count, pace.rate(), pace.time_left() if unit else "")
                log.info("%s: %s", what, ", ".join(filter(None, parts)))

    yield advance
