"""The pipeline for any machine: a thread reads, decodes and renders an image while it is in cache.

There are no worker processes, nothing is pickled and nothing is copied: a thread takes one sample,
decodes it into memory of its own, draws its plan, and renders all its views straight into the
batch. All four steps release the interpreter's lock. Batches are handed over in order, and which
thread made which sample leaves no trace in them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from patchmill.loaders.pipelines import Portion
from patchmill.loaders.pipelines.cpu.views import Canvases, PaintedJob
from patchmill.loaders.pipelines.crew import Crew
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.worker import Work, Worker
from patchmill.loaders.stats import Counters, Stage, collect


class Threads:
    name = "threads"

    def __init__(self, work: Work) -> None:
        self._work, self._canvases = work, Canvases(work)
        stages = work.stages("read", "decode", "plan", "render")
        self._workers = [Worker(work, Counters(stages)) for _ in range(work.workers)]

    def run(self, portions: Iterator[Portion]) -> Crew:
        self._workers = [worker.usable() for worker in self._workers]
        jobs = (self._job(*portion) for portion in portions)
        return Crew(self._workers, fill, jobs, self._work.prefetch, self._canvases.hand_over)

    def stages(self, seconds: float) -> dict[str, Stage]:
        return collect({"workers": [worker.counters for worker in self._workers]}, seconds)

    def unmasked(self) -> int:
        return sum(worker.counters.unmasked for worker in self._workers)

    def clear(self) -> None:
        self._canvases.clear()

    def _job(self, epoch: int, ids: np.ndarray) -> PaintedJob:
        job = PaintedJob(epoch, ids, self._work.views, Countdown(len(ids)))
        job.canvas = self._canvases.new(len(ids))
        return job


def fill(worker: Worker, job: PaintedJob, slot: int) -> None:
    """Everything that there is to do for one sample."""
    image = worker.obtain(job, slot, worker.decoded, "decode")
    beside = worker.beside(job, slot, worker.decoded_beside, "decode")
    worker.paint(image, beside, job.rows[slot], job.canvas, slot)
