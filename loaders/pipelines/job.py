"""Jobs: a batch while it is being made, and the countdowns that threads wait on."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded.images import DecodedImages

_POLL_S = 0.2


class Countdown:
    """A latch that opens after `count` items; an error or a cancellation opens it immediately.

    `cancel` takes no lock, because the garbage collector may call it inside `count_down`.
    """

    def __init__(self, count: int) -> None:
        self.then: Callable[[], None] | None = None  # called when it opens, unless by `cancel`
        self._left, self._lock = count, threading.Lock()
        self._error: BaseException | None = None
        self._cancelled, self._opened = False, SimpleQueue[None]()

    @property
    def done(self) -> bool:
        return not self._opened.empty()

    def count_down(self, error: BaseException | None = None, items: int = 1) -> None:
        """Report finished items, or the error with which they ended."""
        if error is not None:
            clear_package_frames(error)
        with self._lock:
            self._left -= items
            self._error = self._error or error
            if not (self._error or self._left <= 0):
                return
            self._opened.put(None)
        if self.then is not None:
            self.then()

    def cancel(self) -> None:
        self._cancelled = True
        self._opened.put(None)

    def wait(self, meanwhile: Callable[[], None] | None = None) -> BaseException | None:
        """Wait for all items; return the first error, once, or None if there was none.

        `meanwhile` is called every fifth of a second until then.
        """
        while not self.done:
            try:  # poll: Ctrl-C just before the thread sleeps would not wake it
                self._opened.get(timeout=_POLL_S)
                self._opened.put(None)  # stays open for other waiters
            except Empty:
                if meanwhile is not None:
                    meanwhile()
        error, self._error = self._error, None
        return error or (iteration_over() if self._cancelled else None)


class Job:
    """A batch in progress: its requested ids, its decision rows and its progress.

    `loaded` opens when workers have loaded every sample, `ready` when every view is rendered (on a
    GPU: queued). If workers do both in one step, they are the same countdown. The crew cuts the
    slots into `chunks`.
    """

    chunks: Sequence[range]
    raw: DecodedImages | None = None  # pixels that the source holds, to be copied
    least_chunk = 1  # minimum slots in a chunk, if they are little work
    single_task = False  # True: not cut into chunks

    def __init__(self, epoch: int, requested: np.ndarray, views: int, loaded: Countdown) -> None:
        size = len(requested)
        self.epoch, self.requested = epoch, requested
        self.ids = requested.copy()  # after substitution of unreadable samples
        self.rows = np.empty((size, views), ROW)
        self.shapes = np.empty((size, 2), np.int32)
        self.loaded = self.ready = loaded
        self.cancelled = False

    def __len__(self) -> int:
        return len(self.requested)

    def cached(self, id: int) -> tuple[int, int, Any] | None:
        """Height, width and data of a sample's image, if the job has it without loading."""
        return None

    def until_cancelled(self, slots: Iterable[int]) -> Iterator[int]:
        """Iterate over these slots until the job is cancelled."""
        for slot in slots:
            if self.cancelled:
                return
            yield slot

    def cancel(self) -> None:
        self.cancelled = True
        self.loaded.cancel()
        self.ready.cancel()


def clear_package_frames(error: BaseException) -> None:
    """Drop local variables of this package's frames from a traceback, which hold batch memory."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = frame.f_globals.get("__package__") or ""
        if package == __package__ or package.startswith(f"{__package__}."):
            with suppress(RuntimeError):  # the frame is still running
                frame.clear()


def iteration_over() -> MillError:
    return MillError(
        "this iteration is over: its loader was closed, loaded a state or started another "
        "iteration; build a second loader to iterate twice at the same time"
    )
