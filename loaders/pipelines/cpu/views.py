"""Views rendered on the CPU: the batch memory that workers write into, and its hand-over."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.parallel import limit_torch_to_one_thread
from patchmill.kernels.views import layout
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import Target
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import FilledBatch
from patchmill.loaders.pipelines.budget import PixelBudget
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.cpu.decoded import DecodedChunks, has_decoded_images
from patchmill.loaders.pipelines.extra import Extra, Parts
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.samples import NO_PASTE, LoadedImage, PasteInputs
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.stats import Counters


class ViewBuffer:
    """Flat memory of one batch's views, with the layout table for the CPU renderer."""

    def __init__(self, flat: torch.Tensor, targets: Sequence[Target], size: int) -> None:
        self.flat = flat
        self.slots = render.slots(targets, size, flat.dtype == torch.uint8)
        self.memory, self.half = render.flat_numpy(flat)


class CpuJob(Job):
    """A batch whose views the workers render into `buffer`."""

    buffer: ViewBuffer
    extra: ExtraWork | None = None  # the recipe's operations, if it has any


class ExtraWork:
    """Work on a batch's finished views: the recipe's operations, part by part."""

    def __init__(self, extra: Extra, buffer: ViewBuffer, config: PipelineConfig, size: int) -> None:
        self.operations, self.parts = extra, Parts(extra, size)
        self.views = layout.views_by_group(buffer.flat, config.targets, size, config.channels_last)


class CpuViews:
    """Batch memory of a pipeline that renders on the CPU. Building it compiles the renderer."""

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._pool = BlockPool(layout.elements(config.targets, config.max_batch), config.dtype)
        with announce_compilation():
            self._compile()

    def prepare(self, job: CpuJob) -> None:
        """Lend a job the memory of its views."""
        job.buffer = self.buffer(len(job))
        if self._config.extra is not None:
            job.extra = ExtraWork(self._config.extra, job.buffer, self._config, len(job))

    def buffer(self, size: int) -> ViewBuffer:
        """Memory for a batch of `size` samples."""
        targets = self._config.targets
        flat = self._pool.acquire()[: layout.elements(targets, size)]
        return ViewBuffer(flat, targets, size)

    def hand_over(self, job: CpuJob) -> FilledBatch:
        labels = self._config.labels(job.ids)
        return FilledBatch(
            job.ids,
            job.buffer.flat,
            None if labels is None else torch.from_numpy(labels),
            job.rows,
            job.shapes,
        )

    def decoded_chunks(self) -> DecodedChunks | None:
        """Compiled calls for samples that are already decoded; None if there are none."""
        config = self._config
        if config.masks is not None or not has_decoded_images(config):
            return None
        job = CpuJob(0, np.zeros(1, np.int64), config.views, Countdown(1))
        job.buffer = self.buffer(1)
        with announce_compilation():
            return DecodedChunks(config, job)

    def clear(self) -> None:
        self._pool.clear()

    def _compile(self) -> None:
        """Compile or load everything that workers call, before many need it at the same time."""
        worker = Worker(self._config, Counters(("plan", "render")))
        job = CpuJob(0, np.zeros(1, np.int64), self._config.views, Countdown(1))
        job.buffer = self.buffer(1)
        worker.plan(job, [0], [0], [(1, 1)])
        image = np.zeros((1, 1, 3), np.uint8)
        worker.render(job, [0], [image], [NO_PASTE])
        if self._config.masks is not None:
            paste = PasteInputs(np.zeros((1, 1), np.uint8), LoadedImage(1, 1, image))
            worker.render(job, [0], [image], [paste])
        permutation.substitute(0, 0, 0, 0, 1)


def make_views(worker: Worker, job: CpuJob, slots: Sequence[int], stage: str) -> None:
    """Read, decode (in `stage`), plan and render, as many samples at a time as pixels allow."""
    samples = worker.samples
    while slots:
        images = worker.load(
            job, slots, samples.decode, stage, budget=PixelBudget(worker.max_pixels)
        )
        pastes = samples.paste_inputs(
            job, slots[: len(images)], samples.decode_background, stage,
            PixelBudget(worker.max_pixels),
        )  # fmt: skip
        if not pastes:  # the job is cancelled
            return
        made, slots = slots[: len(pastes)], slots[len(pastes) :]
        worker.render(job, made, images[: len(made)], pastes)


def apply_extra(worker: Worker, job: CpuJob, slots: range) -> None:
    """Apply the recipe's operations to the parts of the batch that these samples complete."""
    if job.extra is None or job.cancelled:  # cancelled: some of the samples may not be made
        return
    work = job.extra
    for part in work.parts.completed_by(slots):
        if torch.get_num_threads() > 1:
            limit_torch_to_one_thread()  # in this thread: the workers already share the cores
        began = time.perf_counter_ns()
        work.operations.apply(work.views, job.epoch, job.ids, part)
        if work.parts.finish():
            work.operations.finish(work.views, job.epoch, job.ids)
        worker.counters.add("extra", time.perf_counter_ns() - began, part.stop - part.start)
