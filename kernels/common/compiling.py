"""Compilation by one process at a time, announced once.

Ranks of a run, or a preview next to a demo, start with the same kernels. The first process with a
miss in the on-disk cache compiles the kernel; the others wait and load what it has saved.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numba.core import event

try:
    import fcntl
except ImportError:  # not POSIX: processes compile concurrently
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("patchmill")

NOTICE = "compiling the CPU kernels for this machine: about half a minute, once"
LOCK = "compiling.lock"
SLOW_S = 5.0  # compilation that took longer is reported
LONGEST_WAIT_S = 300.0  # for another process; after that this one compiles too
POLL_S = 0.05
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
NO_FULL_COLLECTION = 1 << 30  # younger-generation collections before one of the oldest


@contextmanager
def announce_compilation(after_s: float = 1.0, slow_s: float = SLOW_S) -> Iterator[None]:
    """Log NOTICE, once per process, if compiling (not loading) functions takes over `after_s`.

    If it took over `slow_s` and the result was saved, log that too at the end.
    """
    watch, saved = _Watch(after_s), TURN.saved
    try:
        with event.install_listener("numba:compile", watch):
            yield
    finally:
        watch.timer.cancel()
    if watch.announced and watch.seconds > slow_s and TURN.saved > saved:
        log.warning("compiled the CPU kernels in %.0f s; the next start loads them", watch.seconds)


@functools.cache
def announce() -> None:
    log.warning(NOTICE)


class _Watch(event.Listener):
    """Start the notice's timer at the first function; measure the time until the last one."""

    def __init__(self, after_s: float) -> None:
        self.timer = threading.Timer(after_s, self._announce)
        self.timer.daemon = True
        self.announced, self.seconds = False, 0.0
        self._began: float | None = None

    def on_start(self, event: Any) -> None:
        if self._began is None:
            self._began = time.monotonic()
            self.timer.start()

    def on_end(self, event: Any) -> None:
        if self._began is not None:
            self.seconds = time.monotonic() - self._began

    def _announce(self) -> None:
        self.announced = announce.cache_info().currsize == 0
        announce()


class Turn(event.Listener):
    """This process's turn to compile: from a cache miss until everything is saved.

    Numba compiles under its own lock, so only one thread at a time gets here. Full garbage
    collections are suspended meanwhile: traversing all objects of torch and Numba over and over
    takes a seventh of the time.
    """

    def __init__(self) -> None:
        self.saved = 0  # functions that this process has saved
        self._thresholds: tuple[int, int, int] | None = None  # of the garbage collector, to restore
        self._file: int | None = None
        self._depth = 0  # nesting of functions compiled for the one that was called
        event.register("numba:compile", self)

    def take(self, folder: Path, is_cached: Callable[[], bool]) -> None:
        """Wait until no other process compiles into the folder, or the function is there."""
        if self._depth or self._file is not None or fcntl is None:
            return
        with suppress(OSError):  # a read-only folder, or a disk without locks
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(folder / LOCK, _LOCK_FLAGS, 0o600)
            if _lock(file, is_cached):
                self._file = file
            else:
                os.close(file)

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._thresholds = gc.get_threshold()
            gc.set_threshold(*self._thresholds[:2], NO_FULL_COLLECTION)

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if not self._depth and self._thresholds:
            gc.set_threshold(*self._thresholds)

    def end(self) -> None:
        """Let other processes compile, unless a function is still being compiled."""
        if not self._depth and self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int, is_cached: Callable[[], bool]) -> bool:
    """Lock a file; False once another process has saved the function, or after LONGEST_WAIT_S."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while not is_cached():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        else:
            return not is_cached()
    return False


TURN = Turn()
