"""A worker's shift: its thread from start to release, and the total time of all shifts."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue

from patchmill.loaders.pipelines.worker import Task, Worker


class Shift:
    """One worker's thread in a crew: it runs tasks until one is None, or until it is released.

    The worker's counters get the time spent in tasks, and if `timed` is set, also the CPU time.
    """

    def __init__(self, worker: Worker, tasks: SimpleQueue[Task | None], name: str) -> None:
        self.worker, self.timed = worker, False
        self._tasks, self._leaving = tasks, False
        self._began_ns = self._cpu_began_ns = 0  # start of the current task
        self.thread = threading.Thread(target=worker.run, args=(self,), name=name, daemon=True)

    def release(self) -> None:
        """End the thread after its current task, or, if it is waiting for one, after the next."""
        self._leaving = True

    def get(self) -> Task | None:
        """Wait for the worker's next task; None ends its thread. Called only by that thread."""
        if self._began_ns:
            self.worker.counters.busy_ns += time.perf_counter_ns() - self._began_ns
            if self._cpu_began_ns:
                self.worker.counters.cpu_ns += time.thread_time_ns() - self._cpu_began_ns
        task = None if self._leaving else self._tasks.get()
        self._began_ns = time.perf_counter_ns()
        self._cpu_began_ns = time.thread_time_ns() if self.timed else 0
        return task


class Presence:
    """Lifetime of a pipeline's workers in seconds, summed over workers and iterations."""

    def __init__(self) -> None:
        self._sum, self._workers, self._since = 0.0, 0, time.perf_counter()

    def change(self, workers: int) -> None:
        """Record the number of workers from now on."""
        now = time.perf_counter()
        self._sum, self._since = self._sum + self._workers * (now - self._since), now
        self._workers = workers

    @property
    def seconds(self) -> float:
        return self._sum + self._workers * (time.perf_counter() - self._since)
