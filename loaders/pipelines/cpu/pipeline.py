"""Pipeline `threads` on a CPU: each worker thread takes an image from its bytes to its views.

There are no worker processes, nothing is pickled and nothing is copied: a thread reads the samples
of a chunk, decodes them into its own memory, draws their decision rows, and renders all views
directly into the batch while the images are in cache. All four steps release the GIL. Batches are
handed over in order, and their contents do not depend on which thread made which sample.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from patchmill.loaders.pipelines import BatchIds, Run, stages
from patchmill.loaders.pipelines.base import StagedPipeline
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.cpu.views import CpuJob, CpuViews, apply_extra, make_views
from patchmill.loaders.pipelines.job import Countdown
from patchmill.loaders.pipelines.worker import Worker


class CpuThreadsPipeline(StagedPipeline):
    name = "threads"

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__(config, stages.THREADS_CPU)
        self._memory = self._views = CpuViews(config)
        self._decoded = self._views.decoded_chunks()

    def run(self, batches: Iterator[BatchIds]) -> Run:
        jobs = (self._job(*ids) for ids in batches)
        return self._start(self._make_views, jobs, self._views.hand_over)

    def _job(self, epoch: int, ids: np.ndarray) -> CpuJob:
        job = CpuJob(epoch, ids, self._config.views, Countdown(len(ids)))
        self._views.prepare(job)
        return job

    def _make_views(self, worker: Worker, job: CpuJob, slots: range) -> None:
        """All stages of a chunk: in one go for decoded images, one after another for the rest."""
        rest = self._decoded.make(worker, job, slots) if self._decoded else slots
        make_views(worker, job, rest, "decode")
        apply_extra(worker, job, slots)
