"""Prompt exit of a command that received a signal, even inside a call that cannot be interrupted.

Python runs signal handlers between bytecode instructions. Inside a compiler, a convolution or a
read it may reach none for seconds, so a thread watches for signals, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator

from patchmill.training.ranks.signals import SIGNALS, Signals
from patchmill.training.runtime.run_folder import STOPPED

LONGEST_S = 0.5  # for a run with nothing to save to end by itself
AGAIN_S = 0.3  # a repeat after this long is a new signal: `timeout` sends each one twice
POLL_S = 0.05


@contextlib.contextmanager
def prompt_end() -> Iterator[None]:
    """Watch for signals in a run of one process; enter in its main thread.

    A second signal ends the process immediately, a first one after LONGEST_S with nothing to save.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reading,), name="patchmill-signals", daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watch.join()


def _watch(reading: int) -> None:
    """End the process as its signals require, until the other end of the pipe is closed."""
    first, times, idle_since = 0, dict[int, float](), 0.0
    while True:
        ready, _, _ = select.select([reading], [], [], POLL_S if first else None)
        now = time.monotonic()
        if ready:
            numbers = os.read(reading, 64)
            if not numbers:
                os.close(reading)
                return
            for number in filter(SIGNALS.__contains__, numbers):
                if now - times.setdefault(number, now) > AGAIN_S:
                    os._exit(128 + number)
                first = first or number
        if not first:
            continue
        run = Signals.active
        if run is not None:
            run.announce(first)
        if run is not None and (run.saves or run.writing()):
            idle_since = 0.0
            continue
        idle_since = idle_since or now
        if now - idle_since > LONGEST_S:
            if run is not None:
                run.abandon()
            os._exit(STOPPED)
