"""The threads of one iteration, and the batches they are filling."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np
import torch

from patchmill.kernels.views import cpu
from patchmill.kernels.views.rows import ROW, Target
from patchmill.loaders.errors import MillError
from patchmill.loaders.pipelines.worker import Worker

log = logging.getLogger("patchmill")

PATIENCE_S = 3.0  # for a read that does not return, as from a network disk that has gone away
BLINK_S = 0.2


class Job:
    """One batch in the making."""

    def __init__(
        self, epoch: int, ids: np.ndarray, flat: torch.Tensor, targets: Sequence[Target]
    ) -> None:
        size = len(ids)
        self.epoch, self.ids, self.flat = epoch, ids, flat
        self.slots = cpu.slots(targets, size, flat.dtype == torch.uint8)
        self.memory, self.half = cpu.numbers(flat)
        self.rows = np.empty((size, len(self.slots)), ROW)
        self.shapes = np.empty((size, 2), np.int32)
        self.cancelled = False
        self._left, self._lock = size, threading.Lock()
        self._error: BaseException | None = None
        self._done = threading.Event()

    def finish_one(self, error: BaseException | None = None) -> None:
        """One sample is in its place, or cannot be."""
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._error or not self._left:
                self._done.set()

    def cancel(self) -> None:
        self.cancelled = True
        self._done.set()

    def wait(self) -> BaseException | None:
        """None when every sample is in its place, or what went wrong; an error is given once."""
        while not self._done.wait(BLINK_S):
            pass  # a Ctrl-C that comes just before a thread falls asleep does not wake it
        error, self._error = self._error, None
        return error or (ended() if self.cancelled else None)


Task = tuple[Job, int]  # a batch, and a place in it


class Crew:
    """Threads that fill jobs in order until they are dismissed, or nobody has a use for them."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.jobs: deque[Job] = deque()
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(
                target=worker.run, args=(self._tasks,), name=f"patchmill-{i}", daemon=True
            )
            for i, worker in enumerate(workers)
        ]
        self._process, self._began, self._ended = os.getpid(), time.perf_counter(), 0.0
        # Runs before the interpreter is taken down, when joining a thread would wait for ever.
        self._finish = weakref.finalize(self, _dismiss, self.jobs, self._tasks, self._threads)
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.dismiss()
            problem = f"cannot start {len(self._threads)} threads: {error}; take fewer workers"
            raise MillError(problem) from None

    @property
    def seconds(self) -> float:
        """How long the crew has been, or was, at work."""
        return (self._ended or time.perf_counter()) - self._began

    def begin(self, job: Job) -> None:
        self.jobs.append(job)
        for slot in range(len(job.ids)):
            self._tasks.put((job, slot))

    def next(self) -> Job:
        """The oldest job, when it is finished."""
        self.check()
        job = self.jobs[0]
        error = job.wait()
        if error is None:
            self.jobs.popleft()  # only now, so that a job that is waited for is cancelled too
            return job
        del job  # the traceback must keep neither the batch nor itself alive
        try:
            raise error
        finally:
            del error

    def check(self) -> None:
        if self._ended:
            raise ended()
        if os.getpid() != self._process:
            raise MillError(
                "this process was forked from the one that iterates over the loader, whose threads "
                "did not come along: build a loader in each process"
            )

    def dismiss(self) -> None:
        """End the threads; what they have not begun is dropped."""
        self._ended = self._ended or time.perf_counter()
        self._finish()


def ended() -> MillError:
    return MillError(
        "this iteration is over, because its loader was closed, took a state or began another "
        "iteration: build a second loader to iterate twice at the same time"
    )


def _dismiss(
    jobs: deque[Job], tasks: SimpleQueue[Task | None], threads: Sequence[threading.Thread]
) -> None:
    for job in jobs:
        job.cancel()
    jobs.clear()
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        # The garbage collector may have called us from one of the threads.
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))
    if busy := sum(thread.is_alive() for thread in threads):
        log.warning("%d threads are still reading a sample; they end when it has come", busy)
