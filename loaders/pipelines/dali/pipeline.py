"""Pipeline `dali`: threads read, NVIDIA DALI decodes whole batches, a GPU or threads render.

On a GPU the encoded bytes are uploaded, and views are rendered where the images were decoded;
nothing is copied back. Anything but a plain JPEG is decoded by the threads, exactly as in the other
pipelines, and joins its batch in the renderer. An image that DALI rejects is reread and decoded by
a thread: if it is bad, it goes into the ledger and is substituted; if not, threads decode it from
then on. So every pipeline has the same samples in its batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import BatchIds, FilledBatch, Run, stages
from patchmill.loaders.pipelines.base import PooledMemory, StagedPipeline
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.cpu.views import CpuJob, CpuViews, apply_extra, make_views
from patchmill.loaders.pipelines.crew import Tasks
from patchmill.loaders.pipelines.dali.decoder import DecodedBatch
from patchmill.loaders.pipelines.dali.feeder import AHEAD, INSPECT, DaliFeeder, RenderInSubBatches
from patchmill.loaders.pipelines.dali.job import DaliJob
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu import sub_batches
from patchmill.loaders.pipelines.gpu.arena import BLOCK_BYTES, Arena
from patchmill.loaders.pipelines.gpu.side_stream import SideStream
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.samples import NO_PASTE, LoadedImage, PasteInputs
from patchmill.loaders.pipelines.stages import StageCounters
from patchmill.loaders.pipelines.worker import Worker

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache


class DaliPipeline(StagedPipeline):
    name = "dali"

    def __init__(self, config: PipelineConfig, hardware: float | None = None) -> None:
        self._process = os.getpid()
        backend: type[Backend] = CpuBackend if config.device.type == "cpu" else GpuBackend
        super().__init__(config, backend.table)
        self._memory = self._backend = backend(config, self._counters)
        self._feeder = DaliFeeder(
            config,
            self._counters.of("dali"),
            hardware,
            self._backend.render,
            self._backend.side,
            self._backend.render_in_sub_batches,
        )

    def run(self, batches: Iterator[BatchIds]) -> Run:
        if os.getpid() != self._process:
            raise MillError(
                "DALI does not work in a process that was forked after the loader was built: "
                "build a loader in each process"
            )
        self._feeder = feeder = self._feeder.usable()
        jobs = (self._backend.job(*ids) for ids in batches)
        feed = partial(self._feed, feeder)
        return self._start(feeder.load, jobs, self._backend.hand_over, feed, AHEAD)

    def _device_cache(self) -> DeviceCache | None:
        return self._backend.device_cache()

    def clear(self) -> None:
        super().clear()
        self._feeder.clear()

    def _feed(self, feeder: DaliFeeder, jobs: FeederJobs, tasks: Tasks) -> None:
        feeder.run(jobs, tasks)
        self._backend.synchronize()


class Backend(PooledMemory, Protocol):
    """Renders decoded images: on the GPU, or in CPU worker threads."""

    table: stages.StageTable
    side: SideStream | None  # the stream on which images are needed
    render_in_sub_batches: RenderInSubBatches | None  # None: `render` also makes late samples

    def device_cache(self) -> DeviceCache | None:
        """The images that are kept on the GPU, if any."""
        ...

    def __init__(self, config: PipelineConfig, counters: StageCounters) -> None: ...

    def job(self, epoch: int, ids: np.ndarray) -> DaliJob: ...

    def render(self, job: Any, decoded: DecodedBatch | None, tasks: Tasks) -> None:
        """Render the views of a job, or start to; the job's `ready` opens when it is done."""
        ...

    def synchronize(self) -> None:
        """Wait for all work that was started."""
        ...

    def hand_over(self, job: Any) -> FilledBatch: ...


class GpuBackend:
    table = stages.DALI_GPU

    def __init__(self, config: PipelineConfig, counters: StageCounters) -> None:
        from patchmill.loaders.pipelines.gpu.views import GpuViews  # needs Triton

        self._config, self._views = config, GpuViews(config, counters.of("gpu"))
        self.side: SideStream | None = self._views.side
        self.render_in_sub_batches: RenderInSubBatches | None = self._render_in_sub_batches
        self.hand_over, self.clear = self._views.hand_over, self._views.clear
        self.synchronize = self._views.synchronize

    def device_cache(self) -> DeviceCache | None:
        return self._views.cache

    def job(self, epoch: int, ids: np.ndarray) -> DaliJob:
        config, arena = self._config, self._views.arena()
        job = DaliJob(epoch, ids, config.views, arena, Countdown(1), config.batch_pixels)
        self._views.prepare(job)
        return job

    def render(self, job: DaliJob, decoded: DecodedBatch | None, tasks: Tasks) -> None:
        self._views.render(job, decoded.images if decoded else None, decoded)
        job.ready.count_down()

    def _render_in_sub_batches(
        self, job: DaliJob, load: Callable[[Any], sub_batches.Decoded]
    ) -> None:
        sub_batches.render_in_sub_batches(self._views, job, partial(self.job, job.epoch), load)
        job.ready.count_down()


class CpuBackend:
    table = stages.DALI_CPU

    def __init__(self, config: PipelineConfig, counters: StageCounters) -> None:
        self._config, self._views = config, CpuViews(config)
        self._arena_pool = BlockPool(BLOCK_BYTES, torch.uint8)
        self.side: SideStream | None = None
        self.render_in_sub_batches: RenderInSubBatches | None = None
        self.hand_over = self._views.hand_over

    def job(self, epoch: int, ids: np.ndarray) -> DaliCpuJob:
        config, arena, ready = self._config, Arena(self._arena_pool), Countdown(len(ids))
        return DaliCpuJob(epoch, ids, config.views, arena, ready, config.batch_pixels)

    def render(self, job: Any, decoded: DecodedBatch | None, tasks: Tasks) -> None:
        self._views.prepare(job)  # not earlier, so that jobs in the decoder hold no batch memory
        by_dali = {}
        if decoded is not None:
            by_dali = {int(slot): decoded.array(i) for i, slot in enumerate(job.dali_slots)}
        is_late = job.is_late.tolist()
        job.images = [
            by_dali[slot]
            if slot in by_dali
            else None
            if is_late[slot]
            else job.arena.image(job.locations[slot], *job.shapes[slot])
            for slot in range(len(job))
        ]
        for slots in job.chunks:
            tasks.put((job.ready, render_views, job, slots))

    def device_cache(self) -> None:
        return None

    def synchronize(self) -> None:
        pass

    def clear(self) -> None:
        self._arena_pool.clear()
        self._views.clear()


class DaliCpuJob(CpuJob, DaliJob):
    images: list[np.ndarray | None]  # None: it is late


def render_views(worker: Worker, job: DaliCpuJob, slots: range) -> None:
    """The workers' second step, after DALI has decoded the batch; includes late samples."""
    there, images, late = list[int](), list[np.ndarray](), list[int]()
    for slot in slots:
        if (image := job.images[slot]) is None:
            late.append(slot)
        else:
            there.append(slot)
            images.append(image)
    worker.render(job, there, images, [_paste_inputs(job, slot) for slot in there])
    make_views(worker, job, late, INSPECT)
    apply_extra(worker, job, slots)


def _paste_inputs(job: DaliCpuJob, slot: int) -> PasteInputs:
    mask, background = job.masks.array(slot), job.backgrounds.array(slot, 3)
    height, width, _ = background.shape
    return PasteInputs(mask, LoadedImage(height, width, background)) if mask.size else NO_PASTE
