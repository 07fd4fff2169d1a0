"""Virtual time: real threads whose sleeps and queues follow a clock that no machine can disturb."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any


class VirtualClock:
    """Seconds that pass only while all `threads` sleep or wait at a queue of this clock."""

    def __init__(self, threads: int) -> None:
        self.now = 0.0
        self._threads, self._changed = threads, threading.Condition()
        self._waiting: dict[int, tuple[Callable[[], bool], float]] = {}

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self._wait(lambda: False, self.now + seconds)

    def queue(self) -> Any:
        """The class of this clock's queues, in place of `queue.SimpleQueue`."""
        return type("VirtualQueue", (VirtualQueue,), {"clock": self})

    def _wait(self, ready: Callable[[], bool], until: float) -> None:
        """Wait, with `_changed` held, for what others do or for the time."""
        me = threading.get_ident()
        self._waiting[me] = ready, until
        while not ready() and self.now < until:
            if len(self._waiting) == self._threads and not any(
                done() or end <= self.now for done, end in self._waiting.values()
            ):
                self.now = min(end for _, end in self._waiting.values())
                self._changed.notify_all()
            else:
                self._changed.wait()
        del self._waiting[me]


class VirtualQueue:
    """A `queue.SimpleQueue` in the time of `clock`."""

    clock: VirtualClock

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def put(self, item: Any) -> None:
        with self.clock._changed:
            self._items.append(item)
            self.clock._changed.notify_all()

    def get(self, timeout: float = math.inf) -> Any:
        with self.clock._changed:
            self.clock._wait(lambda: bool(self._items), self.clock.now + timeout)
            if not self._items:
                raise Empty
            return self._items.popleft()

    def empty(self) -> bool:
        return not self._items
