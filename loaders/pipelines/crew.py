"""The crew: the threads of one iteration, and the jobs that they work on."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from queue import SimpleQueue
from typing import Any

from patchmill.loaders.common.errors import MillError, memory_error
from patchmill.loaders.pipelines import FilledBatch, chunks
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.job import Job, clear_package_frames, iteration_over
from patchmill.loaders.pipelines.shift import Presence, Shift
from patchmill.loaders.pipelines.worker import Step, Task, Worker

log = logging.getLogger("patchmill")

JOIN_TIMEOUT_S = 0.5  # a read may never return; an interrupted program must end within a second

Tasks = SimpleQueue[Task | None]
Feeder = Callable[[FeederJobs, Tasks], None]


class Crew:
    """Threads that make jobs in order, until they are dismissed or garbage-collected.

    Worker threads run `step` on the samples of a job, a chunk at a time. A pipeline may add one
    `feeder` thread: it receives the jobs in order, turns loaded ones into ready ones, and may queue
    further tasks for the workers. At most `ahead` batches are made besides the one being waited
    for, and `in_decoder` more jobs are gathered or decoded meanwhile. The number of workers and
    `ahead` may change during an iteration: samples do not depend on the thread that makes them.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        step: Step,
        jobs: Iterator[Any],
        ahead: int,
        hand_over: Callable[[Any], FilledBatch],
        feeder: Feeder | None = None,
        presence: Presence | None = None,
        in_decoder: int = 0,
    ) -> None:
        self._step, self._upcoming = step, jobs
        self.ahead, self._in_decoder, self._hand_over = ahead, in_decoder, hand_over
        self._taken = 0  # jobs handed over
        self._presence = presence or Presence()
        self._jobs: deque[Job] = deque()
        self._tasks: Tasks = SimpleQueue()
        self._feeder_jobs = FeederJobs()
        self.shifts: list[Shift] = []
        self._threads: list[threading.Thread] = []  # all that were ever started
        if feeder:
            arguments = (self._feeder_jobs, self._tasks)
            self._threads.append(
                threading.Thread(target=feeder, args=arguments, name="patchmill-line", daemon=True)
            )
        self._has_feeder = feeder is not None
        self._process, self._started, self._ended = os.getpid(), time.perf_counter(), 0.0
        self._exiting = False
        # Runs before the interpreter shuts down, when joining a thread would block for ever.
        self._stop_threads = weakref.finalize(
            self, _stop_threads, self._jobs, self._tasks, self._feeder_jobs, self._threads
        )
        self._at_exit = functools.partial(_dismiss, weakref.ref(self))
        atexit.register(self._at_exit)  # registered last, so that it runs before DALI's own
        try:
            for thread in self._threads:
                thread.start()
            self.set_workers(workers)
        except RuntimeError as error:
            self.dismiss()
            threads = len(workers) + self._has_feeder
            problem = f"cannot start {threads} threads: {error}; use fewer workers"
            raise MillError(problem) from None

    @property
    def seconds(self) -> float:
        """Seconds from the start until now, or until the crew was dismissed."""
        return (self._ended or time.perf_counter()) - self._started

    def set_workers(self, workers: Sequence[Worker], timed: bool = False) -> None:
        """Continue with these workers: release surplus ones, and start new ones.

        A released worker finishes its task, so that no sample is lost. RuntimeError if no more
        threads can be started.
        """
        for shift in self.shifts[len(workers) :]:
            shift.release()
        del self.shifts[len(workers) :]
        try:
            for worker in workers[len(self.shifts) :]:
                shift = Shift(worker, self._tasks, f"patchmill-{len(self.shifts)}")
                self._threads.append(shift.thread)  # first: Ctrl-C may come between any two lines
                shift.thread.start()
                self.shifts.append(shift)
        finally:
            for shift in self.shifts:
                shift.timed = timed
            self._presence.change(0 if self._ended else len(self.shifts))
            for _ in self.shifts if self._ended else ():  # another thread has not seen the new ones
                self._tasks.put(None)

    def next(self, meanwhile: Callable[[], None] | None = None) -> FilledBatch | None:
        """Start jobs up to the limit and wait for the oldest; None after the last.

        `meanwhile` is called from time to time while this waits. An error in a worker or feeder is
        raised here; if memory ran out in any of the threads, as a MillError.
        """
        try:
            return self._next(meanwhile)
        except (MemoryError, RuntimeError, OSError) as error:
            shortage = memory_error(error, "another batch", self._remedy())
            if shortage is None:
                raise
        raise shortage  # here, where the error and the memory of its frames are gone

    def _remedy(self) -> str:
        workers = f"fewer workers ({len(self.shifts)} now), " if len(self.shifts) > 1 else ""
        ahead = f"prefetch ({self.ahead})" if self.ahead > 1 else "recipe"
        return f"use {workers}a smaller batch_size, {ahead} or cache, or end other programs"

    def _next(self, meanwhile: Callable[[], None] | None) -> FilledBatch | None:
        self.check()
        most = self.ahead + 1 + self._in_decoder
        for job in islice(self._upcoming, max(most - len(self._jobs), 0)):
            self._start(job)
        if self._has_feeder:
            self._feeder_jobs.allow(self._taken + self.ahead + 1)
        oldest = self._jobs.copy()  # another thread may clear them at any moment
        self.check()  # another thread may have dismissed the crew before it could see these jobs
        if not oldest:
            return None
        job = oldest[0]
        del oldest
        error = job.ready.wait(meanwhile)
        if error is None:
            with suppress(IndexError):  # another thread may have dismissed the crew since
                self._jobs.popleft()  # only now, so that `dismiss` cancels the awaited job too
            self._taken += 1
            return self._hand_over(job)
        del job  # the traceback must keep neither the batch nor itself alive
        self._end_of_program()
        clear_package_frames(error)
        try:
            raise error
        finally:
            del error

    def _start(self, job: Job) -> None:
        self._jobs.append(job)
        if job.single_task:
            job.chunks = [range(len(job))]
        else:
            counters = [shift.worker.counters for shift in self.shifts]
            job.chunks = chunks.cut(len(job), counters, job.least_chunk)
        if self._has_feeder:
            self._feeder_jobs.put(job)
        for slots in job.chunks:
            self._tasks.put((job.loaded, self._step, job, slots))
        if self._ended:  # another thread has dismissed the crew, and may not have seen this job
            job.cancel()

    def check(self) -> None:
        if self._ended:
            self._end_of_program()
            raise iteration_over()
        if os.getpid() != self._process:
            raise MillError(
                "this process was forked from the one that iterates over the loader, and threads "
                "do not survive a fork: build a loader in each process"
            )

    def _end_of_program(self) -> None:
        """End a daemon thread that iterates while the program exits, silently as others end."""
        if self._exiting:
            raise SystemExit

    def dismiss(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Stop the threads and cancel unfinished jobs."""
        if self._ended:
            return
        if is_finalizing():  # the threads are gone, and modules may be
            self._ended = self._started
            return
        self._ended = time.perf_counter()
        self._presence.change(0)
        self._stop_threads()
        atexit.unregister(self._at_exit)


def _dismiss(crew: weakref.ref[Crew]) -> None:
    """Dismiss the crew of an iteration in progress when the program exits."""
    if alive := crew():
        alive._exiting = True
        alive.dismiss()


def _stop_threads(
    jobs: deque[Job], tasks: Tasks, feeder_jobs: FeederJobs, threads: Sequence[threading.Thread]
) -> None:
    for job in jobs.copy():
        job.cancel()
    jobs.clear()
    feeder_jobs.end()
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    for thread in threads:
        # The garbage collector may run this function in one of the threads themselves.
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0))
    if busy := sum(thread.is_alive() for thread in threads):
        log.warning("%d threads still wait for a sample or a GPU; they end when it arrives", busy)
