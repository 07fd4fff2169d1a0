"""One thread's work: read a sample, decode it, draw its plan and render its views into a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from patchmill.kernels.views import cpu
from patchmill.loaders import order, plan
from patchmill.loaders.decode import BadImage, Decoder
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.sources import Source
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.crew import Job, Task

MOST_SUBSTITUTES = 100


@dataclass(frozen=True, eq=False)
class Work:
    """What all workers of a loader have in common."""

    source: Source
    ledger: Ledger
    seed: int
    laws: np.ndarray
    largest: int  # view, in pixels
    channels_last: bool


class Sample(NamedTuple):
    id: int
    image: np.ndarray
    began: int  # nanoseconds on the performance counter
    reading: int  # nanoseconds


class Worker:
    """The tools of one thread: they outlive the epoch, so that their memory is touched once."""

    def __init__(self, work: Work, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self.busy = False
        self._work, self._seed = work, np.uint64(work.seed)
        self._decode, self._scratch = Decoder(), cpu.Scratch()

    def usable(self) -> Worker:
        """This worker, or another in its place if a thread is still at work with it."""
        return Worker(self._work, self.counters) if self.busy else self

    def run(self, tasks: SimpleQueue[Task | None]) -> None:
        """Work on tasks until there is a None among them."""
        self.busy = True
        while task := tasks.get():
            job, slot = task
            if not job.cancelled:
                try:
                    self._fill(job, slot, self._obtain(job.epoch, int(job.ids[slot])))
                    job.finish_one()
                except BaseException as error:
                    job.finish_one(error)
            del job, task  # an idle thread, or the traceback of an error, must not keep a batch
        self.busy = False

    def _obtain(self, epoch: int, wanted: int) -> Sample:
        """The sample, or, if it is bad, the one that takes its place."""
        source, ledger = self._work.source, self._work.ledger
        began, reading, id = time.perf_counter_ns(), 0, wanted
        for attempt in range(MOST_SUBSTITUTES):
            if id not in ledger:
                try:
                    start = time.perf_counter_ns()
                    data = source.read(id)
                    reading += time.perf_counter_ns() - start
                    image = self._decode(data)
                    if max(image.shape) <= plan.MAX_SIDE:
                        return Sample(id, image, began, reading)
                    reason = f"a side of {max(image.shape)} pixels is too long"
                except BadImage as error:
                    reason = str(error)
                except OSError as error:
                    reason = error.strerror or str(error) or type(error).__name__
                ledger.record(id, source.where(id), reason)
            id = order.substitute(self._work.seed, epoch, wanted, attempt, len(source))
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample {wanted}; "
            f"see {ledger.path}"
        )

    def _fill(self, job: Job, slot: int, sample: Sample) -> None:
        decoded = time.perf_counter_ns()
        id, image, began, reading = sample
        height, width, _ = image.shape
        rows = job.rows[slot]
        plan.draw_into(self._work.laws, self._seed, job.epoch, id, height, width, rows)
        planned = time.perf_counter_ns()
        self.render(image, job, slot)
        job.ids[slot], job.shapes[slot] = id, (height, width)
        self.counters.add((began, began + reading, decoded, planned, time.perf_counter_ns()))

    def render(self, image: np.ndarray, job: Job, slot: int) -> None:
        """All views of the image, as the job's rows have it."""
        work, rows = self._work, job.rows[slot]
        pool = self._scratch.fitting(image.shape[0], image.shape[1], work.largest)
        cpu.render_image(
            image, rows, job.slots, slot, job.half, work.channels_last, job.memory, pool
        )

    def compile(self, job: Job) -> None:
        """Compile what a thread calls, or load it, before many threads need it all at once."""
        plan.draw_into(self._work.laws, self._seed, job.epoch, 0, 1, 1, job.rows[0])
        self.render(np.zeros((1, 1, 3), np.uint8), job, 0)
        order.substitute(0, 0, 0, 0, 1)
