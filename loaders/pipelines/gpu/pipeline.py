"""Pipeline `threads` on a GPU: threads decode into pinned memory, the GPU renders the views.

It needs no decoder on the GPU. Decoded images are uploaded, which in most recipes are smaller than
their views.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from patchmill.loaders.pipelines import BatchIds, Run, stages
from patchmill.loaders.pipelines.base import StagedPipeline
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.crew import Tasks
from patchmill.loaders.pipelines.feeder_jobs import FeederJobs
from patchmill.loaders.pipelines.gpu.arena import (
    ArenaJob,
    decode_into,
    pack_paste_inputs,
    plan_cached,
)
from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache
from patchmill.loaders.pipelines.gpu.sub_batches import Decoded, render_in_sub_batches
from patchmill.loaders.pipelines.gpu.views import GpuViews
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.samples import LoadedImage
from patchmill.loaders.pipelines.stages import StageTable
from patchmill.loaders.pipelines.worker import Worker


class GpuThreadsPipeline(StagedPipeline):
    name = "threads"

    def __init__(
        self,
        config: PipelineConfig,
        table: StageTable = stages.THREADS_GPU,
        lanes: int | None = None,
    ) -> None:
        super().__init__(config, table, lanes)
        self._memory = self._views = GpuViews(config, self._counters.of("gpu"))

    def run(self, batches: Iterator[BatchIds]) -> Run:
        jobs = (self._job(*ids) for ids in batches)
        return self._start(self._load, jobs, self._views.hand_over, self._feed)

    def _job(self, epoch: int, ids: np.ndarray) -> ArenaJob:
        config = self._config
        job = ArenaJob(epoch, ids, config.views, self._views.arena(), config.batch_pixels)
        job.ready = Countdown(1)
        self._views.prepare(job)
        return job

    def _device_cache(self) -> DeviceCache | None:
        return self._views.cache

    def _feed(self, jobs: FeederJobs, tasks: Tasks) -> None:
        """Main loop of the feeder thread: queue the views of decoded batches, in order."""
        while job := jobs.get():
            error = job.loaded.wait()
            if error is None:
                try:
                    if job.is_late.any():
                        self._render_in_sub_batches(job, tasks)
                    else:
                        self._views.render(job)
                except BaseException as problem:
                    error = problem
            job.ready.count_down(error)
            del job, error
        self._views.synchronize()

    def _render_in_sub_batches(self, job: ArenaJob, tasks: Tasks) -> None:
        def load(sub_batch: ArenaJob) -> Decoded:
            for slots in self._tasks_of(sub_batch):
                tasks.put((sub_batch.loaded, self._load, sub_batch, slots))
            if error := sub_batch.loaded.wait():
                raise error
            return None, None

        render_in_sub_batches(self._views, job, partial(self._job, job.epoch), load)

    def _load(self, worker: Worker, job: ArenaJob, slots: range) -> None:
        decode(worker, job, slots)

    def _tasks_of(self, job: ArenaJob) -> list[range]:
        """The slots of the tasks that load a job's samples."""
        return [range(slot, slot + 1) for slot in range(len(job))]


def decode(worker: Worker, job: ArenaJob, slots: range) -> None:
    """The workers' stages of a chunk: read and decode into the batch's arena, and plan.

    Samples in the device cache are only planned.
    """

    def load(id: int, data: bytes | np.ndarray) -> LoadedImage:
        return decode_into(job.arena, data, worker.max_pixels)

    cached, others = plan_cached(worker, job, slots)
    images = worker.load(job, others, load, "decode", budget=job.budget) if others else []
    made = others[: len(images)]
    job.postpone(others[len(images) :])
    for slot, image in zip(made, images, strict=True):
        job.locations[slot] = image[:2]
    pack_paste_inputs(worker, job, [*cached, *made], "decode")
