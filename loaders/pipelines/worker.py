"""A worker thread: it loads samples, draws their decision rows and renders their views."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchmill.kernels.views.cpu import render
from patchmill.loaders.ledger import Ledger
from patchmill.loaders.pipelines.budget import PixelBudget
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.samples import Load, PasteInputs, SampleReader
from patchmill.loaders.plan import draw
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.cpu.views import CpuJob

Step = Callable[["Worker", Any, range], None]  # work on some samples (slots) of a job
Task = tuple[Countdown, Step, Job, range]  # the countdown to report to; step, job and slots


class TaskQueue(Protocol):
    def get(self) -> Task | None:
        """Wait for the next task; None after the last."""
        ...


class Worker:
    """State of one worker thread. Lives as long as the pipeline, so that its memory is reused."""

    def __init__(self, config: PipelineConfig, counters: Counters) -> None:
        self.samples, self.counters = SampleReader(config, counters), counters
        self.busy = False
        self._config = config
        self._seed, self.scratch = np.uint64(config.seed), render.Scratch()
        self._largest = max(target.size for target in config.targets)

    @property
    def ledger(self) -> Ledger:
        return self._config.ledger

    @property
    def max_pixels(self) -> int:
        return self._config.max_pixels

    def usable(self) -> Worker:
        """This worker, or a replacement if a thread of an earlier iteration still uses it."""
        return Worker(self._config, self.counters) if self.busy else self

    def run(self, tasks: TaskQueue) -> None:
        """Main loop of the thread: run tasks until a None arrives."""
        self.busy = True
        while task := tasks.get():
            countdown, step, job, slots = task
            if not job.cancelled:
                try:
                    step(self, job, slots)
                    if not job.cancelled:  # else the step may have skipped slots
                        countdown.count_down(items=len(slots))
                except BaseException as error:
                    countdown.count_down(error, len(slots))
            # Neither an idle thread nor an error's traceback may keep a batch alive.
            del countdown, step, job, task
        self.busy = False

    def load(
        self,
        job: Job,
        slots: Sequence[int],
        load: Load,
        stage: str,
        encoded: Sequence[bytes | np.ndarray | None] | None = None,
        budget: PixelBudget | None = None,
    ) -> list[Any]:
        """Load the images of a chunk by `load`, and draw their decision rows into the job.

        `encoded` holds data that were read already. There are fewer images than slots if the budget
        runs out or the job is cancelled meanwhile.
        """
        ids, images = self.samples.read(job, slots, load, stage, encoded, budget)
        self.plan(job, slots[: len(ids)], ids, [image[:2] for image in images])
        return [image.data for image in images]

    def plan(
        self,
        job: Job,
        slots: Sequence[int] | np.ndarray,
        ids: Sequence[int] | np.ndarray,
        shapes: Sequence[tuple[int, int]] | np.ndarray,
    ) -> None:
        """Draw the decision rows of samples with these ids, heights and widths into the job."""
        began, at = time.perf_counter_ns(), np.array(slots, np.int64)
        job.ids[at], job.shapes[at] = ids, np.array(shapes, np.int32).reshape(-1, 2)
        draw.draw_slots(self._config.laws, self._seed, job.epoch, at, job.ids, job.shapes, job.rows)
        self.counters.add("plan", time.perf_counter_ns() - began, len(at))

    def render(
        self,
        job: CpuJob,
        slots: Sequence[int],
        images: Sequence[np.ndarray],
        pastes: Sequence[PasteInputs],
    ) -> None:
        """Render all views of a chunk's images into the batch, by their decision rows."""
        began, out = time.perf_counter_ns(), job.buffer
        channels_last, pasted = self._config.channels_last, self._config.masks is not None
        for slot, image, (mask, (_, _, background)) in zip(
            job.until_cancelled(slots), images, pastes, strict=False
        ):
            height, width, _ = image.shape
            pool = self.scratch.reserve(height, width, self._largest, mask.shape, background.shape)
            destination = (
                job.rows[slot], out.slots, slot, out.half, channels_last, out.memory, pool,
            )  # fmt: skip
            if pasted:
                render.render_pasted(image, mask, background, *destination)
            else:
                render.render_image(image, *destination)
        self.counters.add("render", time.perf_counter_ns() - began, len(images))
