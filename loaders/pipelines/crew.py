"""The threads of one iteration, and the batches they are filling."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import Filled
from patchmill.loaders.pipelines.job import Job, clear_own_frames, ended
from patchmill.loaders.pipelines.worker import Step, Task, Worker

log = logging.getLogger("patchmill")

PATIENCE_S = 3.0  # for a read that does not return, as from a network disk that has gone away

Tasks = SimpleQueue[Task | None]
Jobs = SimpleQueue[Any]  # jobs of the line's own kind, or None


class Crew:
    """Threads that fill jobs in order until they are dismissed, or nobody has a use for them.

    Workers do `gather` on every sample of a job. Where there is a `line`, it is one more thread,
    which gets the jobs in their order, finishes those that are gathered, and may give the workers
    further tasks.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        gather: Step,
        jobs: Iterator[Any],
        ahead: int,
        hand_over: Callable[[Any], Filled],
        line: Callable[[Jobs, Tasks], None] | None = None,
    ) -> None:
        self._gather, self._coming, self._ahead, self._hand_over = gather, jobs, ahead, hand_over
        self._jobs: deque[Job] = deque()
        self._tasks: Tasks = SimpleQueue()
        self._line: Jobs = SimpleQueue()
        self._threads = [
            threading.Thread(
                target=worker.run, args=(self._tasks,), name=f"patchmill-{i}", daemon=True
            )
            for i, worker in enumerate(workers)
        ]
        if line:
            arguments = (self._line, self._tasks)
            self._threads.append(
                threading.Thread(target=line, args=arguments, name="patchmill-line", daemon=True)
            )
        self._has_line = line is not None
        self._process, self._began, self._ended = os.getpid(), time.perf_counter(), 0.0
        # Runs before the interpreter is taken down, when joining a thread would wait for ever.
        self._finish = weakref.finalize(
            self, _dismiss, self._jobs, self._tasks, self._line, self._threads
        )
        atexit.register(self._finish)  # once more, so that it comes before DALI ends itself
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

    def next(self) -> Filled | None:
        """The oldest batch, when it is finished; None after the last."""
        self.check()
        for job in islice(self._coming, max(self._ahead + 1 - len(self._jobs), 0)):
            self._begin(job)
        job = next(iter(tuple(self._jobs)), None)
        self.check()  # another thread may have dismissed us, before it could see these jobs
        if job is None:
            return None
        error = job.made.wait()
        if error is None:
            with suppress(IndexError):  # where another thread has dismissed us since
                self._jobs.popleft()  # only now, so that a job that is waited for is cancelled too
            return self._hand_over(job)
        del job  # the traceback must keep neither the batch nor itself alive
        clear_own_frames(error)
        try:
            raise error
        finally:
            del error

    def _begin(self, job: Job) -> None:
        self._jobs.append(job)
        for slot in range(len(job)):
            self._tasks.put((job.gathered, self._gather, job, slot))
        if self._has_line:
            self._line.put(job)

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
        atexit.unregister(self._finish)


def _dismiss(
    jobs: deque[Job], tasks: Tasks, line: Jobs, threads: Sequence[threading.Thread]
) -> None:
    for job in tuple(jobs):
        job.cancel()
    jobs.clear()
    line.put(None)
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + PATIENCE_S
    for thread in threads:
        # The garbage collector may have called us from one of the threads.
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))
    if busy := sum(thread.is_alive() for thread in threads):
        log.warning("%d threads still wait for a sample or a GPU; they end when it has come", busy)
