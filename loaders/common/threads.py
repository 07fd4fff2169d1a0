"""Background threads: map in order, with bounded read-ahead; iterators read ahead; core count."""

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
_JOIN_SECONDS = 0.5  # for threads that may wait for the network or the compiler


def available_cores() -> int:
    """Number of CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_time(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores' worth of time that this process gets: less than its cores in some containers."""
    return min(available_cores(), core_limit(root) or math.inf)


def core_limit(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that a container gets; None without a limit."""
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
    """Results in the order of the items; an error or Ctrl-C cancels what has not begun.

    Work in progress is waited for, but not for long: a compiler cannot be interrupted. All items
    are taken at once: for more than fit into memory see `map_ahead`.
    """
    return map_ahead(work, items, threads, sys.maxsize)


def map_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result]:
    """Results in the order of the items, of which at most `ahead` are begun and not yet yielded.

    It ends as `map_in_threads` does: work in progress, such as a read from storage that hangs, is
    not waited for long.
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
    """Daemon threads, for whose work the interpreter's exit does not wait; started when needed."""

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
        """End the threads once they have done what was submitted and is not cancelled."""
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
            del task, future, item  # results are the caller's alone


def _wait_for(future: Future[Result]) -> Result:
    """The result, or the error; polls, since Ctrl-C just before the wait would not end it."""
    while not future.done():
        with suppress(TimeoutError):
            future.exception(_POLL_SECONDS)
    return future.result()


class _End(NamedTuple):
    error: BaseException | None


def read_ahead(
    items: Generator[Item], ahead: int, halt: Callable[[], object] | None = None
) -> Generator[Item]:
    """The items of a generator run in a thread, at most `ahead` of them waiting.

    Closing this closes `items` too; `halt` is called then, to end what `items` may wait for.
    """
    ready: SimpleQueue[Item | _End] = SimpleQueue()
    room, closed = threading.Semaphore(ahead), threading.Event()

    def fill() -> None:
        error = None
        try:
            for item in items:
                room.acquire()
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
            room.release()
            yield item
        if item.error:
            raise item.error
    finally:
        closed.set()
        room.release()
        if halt is not None:
            halt()
        _join([thread])


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for daemon threads to end, but not for long; at exit they are frozen, and no more."""
    deadline = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        # The garbage collector may end a generator in one of its own threads.
        if not sys.is_finalizing() and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))
