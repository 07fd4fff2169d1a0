"""Batches whose views the CPU renders: their memory, and their way to the user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.common.jit import announce_compilation
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import Target
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import Filled
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.pipelines.worker import NOTHING, Beside, Taken, Work, Worker
from patchmill.loaders.stats import Counters


class Canvas:
    """A batch's memory as the CPU renderer takes it."""

    def __init__(self, flat: torch.Tensor, targets: Sequence[Target], size: int) -> None:
        self.flat = flat
        self.slots = render.slots(targets, size, flat.dtype == torch.uint8)
        self.memory, self.half = render.numbers(flat)


class PaintedJob(Job):
    """A batch whose views the workers render."""

    canvas: Canvas


class Canvases:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._blocks = Blocks(layout.elements(work.targets, work.most), work.dtype)
        with announce_compilation():
            self._compile()

    def new(self, size: int) -> Canvas:
        targets = self._work.targets
        flat = self._blocks.take()[: layout.elements(targets, size)]
        return Canvas(flat, targets, size)

    def hand_over(self, job: PaintedJob) -> Filled:
        labels = self._work.labels(job.ids)
        return Filled(
            job.ids,
            job.canvas.flat,
            None if labels is None else torch.from_numpy(labels),
            job.rows,
            job.shapes,
        )

    def clear(self) -> None:
        self._blocks.clear()

    def _compile(self) -> None:
        """Compile what a thread calls, or load it, before many threads need it all at once."""
        worker = Worker(self._work, Counters(("plan", "render")))
        job = Job(0, np.zeros(1, np.int64), self._work.views, Countdown(1))
        worker.plan(job, 0, 0, Taken(1, 1, None))
        image = np.zeros((1, 1, 3), np.uint8)
        worker.paint(image, NOTHING, job.rows[0], self.new(1), 0)
        if self._work.masks is not None:
            beside = Beside(np.zeros((1, 1), np.uint8), Taken(1, 1, image))
            worker.paint(image, beside, job.rows[0], self.new(1), 0)
        permutation.substitute(0, 0, 0, 0, 1)
