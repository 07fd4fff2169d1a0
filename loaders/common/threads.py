"""Background threads: map in order, with bounded read-ahead; iterators read ahead; core count."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_JOIN_SECONDS = 1.0  # for a thread that may be waiting for the network


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
) -> Iterator[Result]:
    """Results in the order of the items; an error or Ctrl-C cancels what has not begun.

    All items are taken at once: for more than fit into memory see `map_ahead`.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def map_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Results in the order of the items, of which at most `ahead` are begun and not yet yielded."""
    pool = ThreadPoolExecutor(threads, "patchmill-prepare")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(pending) == ahead:
                yield pending.popleft().result()
            pending.append(pool.submit(work, item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


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
        thread.join(_JOIN_SECONDS)
