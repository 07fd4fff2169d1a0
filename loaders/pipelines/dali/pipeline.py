"""The pipeline on NVIDIA DALI: threads read, DALI decodes whole batches, a GPU or threads render.

On a GPU the encoded bytes go up and views are made where the images were decoded; nothing comes
back. What is not a plain JPEG the threads decode themselves, exactly as in the other pipelines, and
it joins its batch on the way. An image that DALI refuses is read again and decoded by the threads:
if it is bad, it goes into the ledger and another takes its place; if not, the threads decode it
from then on. So every pipeline has the same samples in its batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import Filled, Portion
from patchmill.loaders.pipelines.cpu.views import Canvases, PaintedJob
from patchmill.loaders.pipelines.crew import Crew, Jobs, Tasks
from patchmill.loaders.pipelines.dali.decoder import Decoded
from patchmill.loaders.pipelines.dali.feeder import DaliJob, DaliLine
from patchmill.loaders.pipelines.gpu.arena import BLOCK, Arena
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.pipelines.worker import NOTHING, Beside, Taken, Work, Worker
from patchmill.loaders.stats import Counters, Stage, collect


class Dali:
    name = "dali"

    def __init__(self, work: Work, hardware: float | None = None) -> None:
        self._work, self._process = work, os.getpid()
        self._place: Place = OnCpu(work) if work.device.type == "cpu" else OnGpu(work)
        self._line = DaliLine(work, hardware, self._place.finish, self._place.stream)
        stages = work.stages(*self._place.stages)
        self._workers = [Worker(work, Counters(stages)) for _ in range(work.workers)]

    def run(self, portions: Iterator[Portion]) -> Crew:
        if os.getpid() != self._process:
            raise MillError(
                "DALI does not work in a process that was forked after the loader was built: "
                "build a loader in each process"
            )
        self._line = line = self._line.usable()
        self._workers = [worker.usable() for worker in self._workers]
        jobs = (self._place.job(*portion) for portion in portions)
        ahead, hand_over = self._work.prefetch, self._place.hand_over
        feed = partial(self._feed, line)
        return Crew(self._workers, line.gather, jobs, ahead, hand_over, feed)

    def stages(self, seconds: float) -> dict[str, Stage]:
        workers = [worker.counters for worker in self._workers]
        crews = {"workers": workers, "dali": [self._line.counters], **self._place.counters}
        return collect(crews, seconds)

    def unmasked(self) -> int:
        return sum(worker.counters.unmasked for worker in self._workers)

    def clear(self) -> None:
        self._place.clear()

    def _feed(self, line: DaliLine, jobs: Jobs, tasks: Tasks) -> None:
        line.run(jobs, tasks)
        self._place.end()


class Place(Protocol):
    """Where decoded images become views."""

    stages: tuple[str, ...]  # of the workers
    counters: dict[str, list[Counters]]  # of others
    stream: torch.cuda.Stream | None  # on which images are wanted

    def job(self, epoch: int, ids: np.ndarray) -> DaliJob: ...

    def finish(self, job: Any, decoded: Decoded | None, tasks: Tasks) -> None:
        """Make the views of a job, or begin to; its `made` says when that is over."""
        ...

    def end(self) -> None:
        """Wait for all that was begun."""
        ...

    def hand_over(self, job: Any) -> Filled: ...

    def clear(self) -> None: ...


class OnGpu:
    stages: tuple[str, ...] = ("read", "inspect", "plan")

    def __init__(self, work: Work) -> None:
        from patchmill.loaders.pipelines.gpu.views import GpuViews  # needs Triton

        self._work, self._views = work, GpuViews(work)
        self.stream = self._views.stream
        self.counters: dict[str, list[Counters]] = {"gpu": [self._views.counters]}
        self.hand_over, self.clear = self._views.hand_over, self._views.clear
        self.end = self._views.finish

    def job(self, epoch: int, ids: np.ndarray) -> DaliJob:
        return DaliJob(epoch, ids, self._work.views, self._views.arena(), Countdown(1))

    def finish(self, job: DaliJob, decoded: Decoded | None, tasks: Tasks) -> None:
        self._views.make(job, decoded.images if decoded else None, decoded)
        job.made.finish_one()


class OnCpu:
    stages: tuple[str, ...] = ("read", "inspect", "plan", "render")

    def __init__(self, work: Work) -> None:
        self._work, self._canvases = work, Canvases(work)
        self._packed = Blocks(BLOCK, torch.uint8)
        self.counters: dict[str, list[Counters]] = {}
        self.stream: torch.cuda.Stream | None = None
        self.hand_over = self._canvases.hand_over

    def job(self, epoch: int, ids: np.ndarray) -> PaintedDaliJob:
        made = Countdown(len(ids))
        job = PaintedDaliJob(epoch, ids, self._work.views, Arena(self._packed), made)
        job.canvas = self._canvases.new(len(ids))
        return job

    def finish(self, job: Any, decoded: Decoded | None, tasks: Tasks) -> None:
        slots, arrays = job.slots, {}
        if decoded is not None:
            arrays = {int(slot): decoded.array(i) for i, slot in enumerate(slots)}
        job.images = [
            arrays[slot] if slot in arrays else job.arena.image(job.places[slot], *job.shapes[slot])
            for slot in range(len(job))
        ]
        for slot in range(len(job)):
            tasks.put((job.made, paint, job, slot))

    def end(self) -> None:
        pass

    def clear(self) -> None:
        self._packed.clear()
        self._canvases.clear()


class PaintedDaliJob(PaintedJob, DaliJob):
    images: list[np.ndarray]


def paint(worker: Worker, job: PaintedDaliJob, slot: int) -> None:
    image, mask, companion = job.images[slot], job.masks.array(slot), job.companions.array(slot, 3)
    height, width, _ = companion.shape
    beside = Beside(mask, Taken(height, width, companion)) if mask.size else NOTHING
    worker.paint(image, beside, job.rows[slot], job.canvas, slot)
