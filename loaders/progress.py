"""How long work shows that it is alive: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

log = logging.getLogger("patchmill")

Advance = Callable[[int], None]

_QUIET_SECONDS = 1.0
_LOG_SECONDS = 10.0


@contextlib.contextmanager
def track(what: str, total: int | None = None) -> Iterator[Advance]:
    """Yields `advance(n)`, which any thread may call: `with track("listing", 100) as advance`."""
    with (_bar if sys.stderr.isatty() else _lines)(what, total) as advance:
        yield advance


@contextlib.contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bar.add_task(what, total=total)
    timer = threading.Timer(_QUIET_SECONDS, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda n: bar.advance(task, n)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


@contextlib.contextmanager
def _lines(what: str, total: int | None) -> Iterator[Advance]:
    lock, done, due = threading.Lock(), 0, time.monotonic() + _QUIET_SECONDS

    def advance(n: int) -> None:
        nonlocal done, due
        with lock:
            done += n
            if time.monotonic() > due:
                due = time.monotonic() + _LOG_SECONDS
                log.info("%s: %s%s", what, f"{done:,}", f" of {total:,}" if total else "")

    yield advance
