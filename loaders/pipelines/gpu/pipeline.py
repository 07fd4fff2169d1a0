"""The threads pipeline for a GPU: threads decode into pinned memory, the GPU makes the views.

Needs no decoder on the GPU. What travels is the decoded image, less than its views in most recipes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from patchmill.loaders.pipelines import Portion
from patchmill.loaders.pipelines.crew import Crew, Jobs, Tasks
from patchmill.loaders.pipelines.gpu.arena import PackedJob, decode_into, pack_beside
from patchmill.loaders.pipelines.gpu.views import GpuViews
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.worker import Taken, Work, Worker
from patchmill.loaders.stats import Counters, Stage, collect


class ThreadsGpu:
    name = "threads"

    def __init__(self, work: Work) -> None:
        self._work, self._views = work, GpuViews(work)
        stages = work.stages("read", "decode", "plan")
        self._workers = [Worker(work, Counters(stages)) for _ in range(work.workers)]

    def run(self, portions: Iterator[Portion]) -> Crew:
        self._workers = [worker.usable() for worker in self._workers]
        jobs = (self._job(*portion) for portion in portions)
        return Crew(
            self._workers, decode, jobs, self._work.prefetch, self._views.hand_over, self._finish
        )

    def stages(self, seconds: float) -> dict[str, Stage]:
        workers = [worker.counters for worker in self._workers]
        return collect({"workers": workers, "gpu": [self._views.counters]}, seconds)

    def unmasked(self) -> int:
        return sum(worker.counters.unmasked for worker in self._workers)

    def clear(self) -> None:
        self._views.clear()

    def _job(self, epoch: int, ids: np.ndarray) -> PackedJob:
        job = PackedJob(epoch, ids, self._work.views, self._views.arena())
        job.made = Countdown(1)
        return job

    def _finish(self, jobs: Jobs, tasks: Tasks) -> None:
        """Queue the views of batches that are decoded, one after the other."""
        while job := jobs.get():
            error = job.gathered.wait()
            if error is None:
                try:
                    self._views.make(job)
                except BaseException as problem:
                    error = problem
            job.made.finish_one(error)
            del job, error
        self._views.finish()


def decode(worker: Worker, job: PackedJob, slot: int) -> None:
    """Read and decode one sample into the batch's arena."""

    def take(id: int, data: bytes) -> Taken:
        return Taken(*decode_into(job.arena, data))

    job.places[slot] = worker.obtain(job, slot, take, "decode")[:2]
    pack_beside(worker, job, slot, "decode")
