"""One thread's tools: it obtains samples, draws their plans and renders their views."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from patchmill.kernels.views import cpu
from patchmill.loaders import order, plan
from patchmill.loaders.decode import BadImage, Decoder
from patchmill.loaders.errors import MillError
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.sources import Source
from patchmill.loaders.sources.flowing import Flowing
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    import torch

    from patchmill.kernels.views.rows import Target
    from patchmill.loaders.pipelines.canvas import Canvas

MOST_SUBSTITUTES = 100


@dataclass(frozen=True, eq=False)
class Work:
    """What a loader's pipeline has to do, and with what."""

    source: Source | Flowing
    ledger: Ledger
    seed: int
    laws: np.ndarray
    targets: Sequence[Target]
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    workers: int
    prefetch: int  # batches made ahead
    most: int  # samples in a batch

    @property
    def views(self) -> int:
        return len(self.laws)

    def labels(self, ids: np.ndarray) -> np.ndarray | None:
        if isinstance(self.source, Flowing):
            return self.source.labels_of(ids)
        labels = self.source.labels
        return None if labels is None else np.asarray(labels[ids], np.int64)

    def substitute(self, epoch: int, id: int, attempt: int) -> int:
        """The sample that is tried in the place of a bad one."""
        if isinstance(self.source, Flowing):
            return self.source.substitute(self.seed, epoch, id, attempt)
        return order.substitute(self.seed, epoch, id, attempt, len(self.source))


class Taken(NamedTuple):
    """What became of a sample's bytes."""

    height: int
    width: int
    image: Any


Step = Callable[["Worker", Any, int], None]  # on one sample of a job
Task = tuple[Countdown, Step, Job, int]  # what counts it, what to do, and on which sample


class Worker:
    """The tools of one thread: they outlive the epoch, so that their memory is touched once."""

    def __init__(self, work: Work, counters: Counters) -> None:
        self.counters, self.work = counters, work
        self.busy = False
        self._seed, self._decode, self._scratch = np.uint64(work.seed), Decoder(), cpu.Scratch()
        self._largest = max(target.size for target in work.targets)

    def usable(self) -> Worker:
        """This worker, or another in its place if a thread is still at work with it."""
        return Worker(self.work, self.counters) if self.busy else self

    def run(self, tasks: SimpleQueue[Task | None]) -> None:
        """Work on tasks until there is a None among them."""
        self.busy = True
        while task := tasks.get():
            countdown, step, job, slot = task
            if not job.cancelled:
                try:
                    step(self, job, slot)
                    countdown.finish_one()
                except BaseException as error:
                    countdown.finish_one(error)
            # An idle thread, or the traceback of an error, must not keep a batch.
            del countdown, step, job, task
        self.busy = False

    def obtain(self, job: Job, slot: int, take: Callable[[int, bytes], Taken], stage: str) -> Any:
        """The image that `take` makes of the sample's bytes, and its decisions in the job's rows.

        A sample that cannot be read, or that `take` refuses with BadImage, is listed in the ledger,
        and the one that takes its place is tried.
        """
        source, ledger = self.work.source, self.work.ledger
        wanted = id = int(job.wanted[slot])
        reading = taking = 0
        for attempt in range(MOST_SUBSTITUTES):
            if id not in ledger:
                began = read = time.perf_counter_ns()
                try:
                    data = source.read(id)
                    read = time.perf_counter_ns()
                    taken = take(id, data)
                    reason = None
                    if (side := max(taken.height, taken.width)) > plan.MAX_SIDE:
                        reason = f"a side of {side} pixels is too long"
                except BadImage as error:
                    reason = str(error)
                except OSError as error:
                    reason = error.strerror or str(error) or type(error).__name__
                reading, taking = reading + read - began, taking + time.perf_counter_ns() - read
                if reason is None:
                    self.counters.add("read", reading)
                    self.counters.add(stage, taking)
                    self.plan(job, slot, id, taken)
                    return taken.image
                ledger.record(id, source.where(id), reason)
            id = self.work.substitute(job.epoch, wanted, attempt)
        raise MillError(
            f"no readable sample was found in {MOST_SUBSTITUTES} draws to replace sample {wanted}; "
            f"see {ledger.path}"
        )

    def decoded(self, id: int, data: bytes) -> Taken:
        """The image in this worker's own memory, valid until its next one."""
        image = self._decode(data)
        return Taken(image.shape[0], image.shape[1], image)

    def plan(self, job: Job, slot: int, id: int, taken: Taken) -> None:
        began = time.perf_counter_ns()
        height, width, _ = taken
        plan.draw_into(self.work.laws, self._seed, job.epoch, id, height, width, job.rows[slot])
        job.ids[slot], job.shapes[slot] = id, (height, width)
        self.counters.add("plan", time.perf_counter_ns() - began)

    def paint(self, image: np.ndarray, rows: np.ndarray, canvas: Canvas, slot: int) -> None:
        """All views of the image, as the rows have it."""
        began = time.perf_counter_ns()
        pool = self._scratch.fitting(image.shape[0], image.shape[1], self._largest)
        cpu.render_image(
            image, rows, canvas.slots, slot, canvas.half, self.work.channels_last, canvas.memory,
            pool,
        )  # fmt: skip
        self.counters.add("render", time.perf_counter_ns() - began)
