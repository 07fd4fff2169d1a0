"""A batch in the making, and the wait for it."""

from __future__ import annotations

import threading
import traceback
from contextlib import suppress
from queue import Empty, SimpleQueue

import numpy as np

from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.errors import MillError

BLINK_S = 0.2


class Countdown:
    """Waits until so many samples are done; an error or a cancellation ends the wait at once.

    `cancel` takes no lock: the garbage collector may call it in a thread that is finishing one.
    """

    def __init__(self, count: int) -> None:
        self._left, self._lock = count, threading.Lock()
        self._error: BaseException | None = None
        self._cancelled, self._over = False, SimpleQueue[None]()

    @property
    def over(self) -> bool:
        return not self._over.empty()

    def finish_one(self, error: BaseException | None = None) -> None:
        if error is not None:
            clear_own_frames(error)
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._error or self._left <= 0:
                self._over.put(None)

    def cancel(self) -> None:
        self._cancelled = True
        self._over.put(None)

    def wait(self) -> BaseException | None:
        """None when all are done, or what went wrong; an error is given once."""
        while not self.over:
            with suppress(Empty):  # a Ctrl-C just before a thread falls asleep does not wake it
                self._over.get(timeout=BLINK_S)
                self._over.put(None)  # over it stays
        error, self._error = self._error, None
        return error or (ended() if self._cancelled else None)


class Job:
    """One batch in the making: its decisions, and how far it is.

    `gathered` ends when workers have every sample, `made` when every view is in its place.
    """

    def __init__(self, epoch: int, wanted: np.ndarray, views: int, gathered: Countdown) -> None:
        size = len(wanted)
        self.epoch, self.wanted = epoch, wanted
        self.ids = wanted.copy()  # of samples really in the batch
        self.rows = np.empty((size, views), ROW)
        self.shapes = np.empty((size, 2), np.int32)
        self.gathered = self.made = gathered
        self.cancelled = False

    def __len__(self) -> int:
        return len(self.wanted)

    def cancel(self) -> None:
        self.cancelled = True
        self.gathered.cancel()
        self.made.cancel()


def clear_own_frames(error: BaseException) -> None:
    """Let go of the batches that frames of this package hold in the error's traceback."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__package__") == __package__:
            with suppress(RuntimeError):  # of a frame that is still running
                frame.clear()


def ended() -> MillError:
    return MillError(
        "this iteration is over, because its loader was closed, took a state or began another "
        "iteration: build a second loader to iterate twice at the same time"
    )
