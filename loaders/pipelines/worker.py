"""One worker thread: loads samples, draws their decision rows and renders their views."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from patchmill.kernels.views.cpu import render
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.samples import (
    Load,
    LoadedImage,
    PasteInputs,
    SampleReader,
)
from patchmill.loaders.plan import draw
from patchmill.loaders.stats import Counters

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.cpu.views import ViewBuffer

Step = Callable[["Worker", Any, range], None]  # work on some samples (slots) of a job
Task = tuple[Countdown, Step, Job, range]  # the countdown to report to, the step, job and slots


class Worker:
    """State of one worker thread. Lives as long as the pipeline, so its memory is touched once."""

    def __init__(self, config: PipelineConfig, counters: Counters) -> None:
        self.samples, self.counters = SampleReader(config, counters), counters
        self.busy = False
        self._config = config
        self._seed, self._scratch = np.uint64(config.seed), render.Scratch()
        self._largest = max(target.size for target in config.targets)

    def usable(self) -> Worker:
        """This worker, or a replacement if a thread of an earlier iteration still uses it."""
        return Worker(self._config, self.counters) if self.busy else self

    def run(self, tasks: SimpleQueue[Task | None]) -> None:
        """Main loop of the thread: run tasks until a None arrives."""
        self.busy = True
        while task := tasks.get():
            countdown, step, job, slots = task
            if not job.cancelled:
                try:
                    step(self, job, slots)
                    if not job.cancelled:  # else the step may have left slots out
                        countdown.count_down(items=len(slots))
                except BaseException as error:
                    countdown.count_down(error, len(slots))
            # Neither an idle thread nor an error's traceback may keep a batch alive.
            del countdown, step, job, task
        self.busy = False

    def load(self, job: Job, slot: int, load: Load, stage: str) -> Any:
        """Load the image of a slot by `load`, and draw its decision rows into the job."""
        id, image = self.samples.read(job, slot, load, stage)
        self.plan(job, slot, id, image)
        return image.data

    def plan(self, job: Job, slot: int, id: int, image: LoadedImage) -> None:
        began = time.perf_counter_ns()
        height, width, _ = image
        draw.draw_into(self._config.laws, self._seed, job.epoch, id, height, width, job.rows[slot])
        job.ids[slot], job.shapes[slot] = id, (height, width)
        self.counters.add("plan", time.perf_counter_ns() - began)

    def render(
        self, image: np.ndarray, paste: PasteInputs, rows: np.ndarray, out: ViewBuffer, slot: int
    ) -> None:
        """Render all views of one image into the batch, as its decision rows say."""
        began = time.perf_counter_ns()
        height, width, _ = image.shape
        mask, background = paste.mask, paste.background.data
        pool = self._scratch.reserve(height, width, self._largest, mask.shape, background.shape)
        destination = (
            rows, out.slots, slot, out.half, self._config.channels_last, out.memory, pool,
        )  # fmt: skip
        if self._config.masks is None:
            render.render_image(image, *destination)
        else:
            render.render_pasted(image, mask, background, *destination)
        self.counters.add("render", time.perf_counter_ns() - began)
