"""Background threads: ordered map with bounded read-ahead, iterator read-ahead, core counts."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, TimeoutError
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_SECONDS = 0.2
_JOIN_SECONDS = 0.5  # for threads that may be waiting for the network or the compiler


def available_cores() -> int:
    """Number of CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_time(root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPU time available to this process, in cores: in some containers, less than its cores."""
    return min(available_cores(), core_limit(root) or math.inf)


def core_limit(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPU quota of the container, in cores; None without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / file).read_text() for file in files).split()
            return int(quota) / int(period) if quota not in ("max", "-1") else None
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


def map_in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Generator[Result]:
    """Yield results in the order of the items; an error or Ctrl-C cancels work not yet started.

    It waits for work in progress, but not for long: a compiler cannot be interrupted. All items are
    submitted at once; if they do not fit into memory, use `map_ahead`.
    """
    return map_ahead(work, items, threads, sys.maxsize)


def map_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result]:
    """Yield results in the order of the items, at most `ahead` of them submitted but not yielded.

    It ends like `map_in_threads`, without waiting long for work in progress, such as a read from
    storage that hangs.
    """
    pool = _Threads(work, threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(pending) == ahead:
                yield _wait_for(pending.popleft())
            pending.append(pool.submit(item))
        while pending:
            yield _wait_for(pending.popleft())
    finally:
        for future in pending:
            future.cancel()
        pool.end()


class _Threads(Generic[Item, Result]):
    """Daemon threads, started on demand, whose work does not delay the interpreter's exit."""

    def __init__(self, work: Callable[[Item], Result], most: int) -> None:
        self._work, self._most = work, most
        self._tasks: SimpleQueue[tuple[Future[Result], Item] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((future, item))
        if len(self._threads) < self._most:
            run, arguments = self._run, (self._work, self._tasks)
            thread = threading.Thread(target=run, args=arguments, name="patchmill-map", daemon=True)
            self._threads.append(thread)  # first: Ctrl-C may come between any two lines
            thread.start()
        return future

    def end(self) -> None:
        """End the threads once they have done all submitted work that is not cancelled."""
        for _ in self._threads:
            self._tasks.put(None)
        _join([thread for thread in self._threads if thread.ident is not None])

    @staticmethod
    def _run(
        work: Callable[[Item], Result], tasks: SimpleQueue[tuple[Future[Result], Item] | None]
    ) -> None:
        while task := tasks.get():
            future, item = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(item))
                except BaseException as error:
                    future.set_exception(error)
            del task, future, item  # only the caller may hold results


def _wait_for(future: Future[Result]) -> Result:
    """The result, or the error; polls, since Ctrl-C just before a wait would not interrupt it."""
    while not future.done():
        with suppress(TimeoutError):
            future.exception(_POLL_SECONDS)
    return future.result()


class _End(NamedTuple):
    error: BaseException | None


def read_ahead(
    items: Generator[Item], ahead: int, halt: Callable[[], object] | None = None
) -> Generator[Item]:
    """Yield the items of a generator that runs in a thread, at most `ahead` of them buffered.

    Closing this also closes `items`, and calls `halt` to end whatever `items` may be waiting for.
    """
    ready: SimpleQueue[Item | _End] = SimpleQueue()
    slots, closed = threading.Semaphore(ahead), threading.Event()

    def fill() -> None:
        error = None
        try:
            for item in items:
                slots.acquire()
                if closed.is_set():
                    return
                ready.put(item)
        except BaseException as caught:
            error = caught
        finally:
            items.close()
            ready.put(_End(error))

    thread = threading.Thread(target=fill, name="patchmill-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            slots.release()
            yield item
        if item.error:
            raise item.error
    finally:
        closed.set()
        slots.release()
        if halt is not None:
            halt()
        _join([thread])


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for daemon threads to end, but not for long, and not at exit, where they are frozen."""
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        # The garbage collector may end a generator in one of its own threads.
        if not sys.is_finalizing() and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))
