"""Pipeline `ffcv` on a CPU: FFCV compiles and runs the work of a batch of a .beton file.

A worker thread calls the compiled code, one batch after another in the loader's order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from patchmill.kernels.common.parallel import parallel_for
from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.pipelines import BatchIds, FilledBatch, Run, stages
from patchmill.loaders.pipelines.base import StagedPipeline
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.extra import Extra
from patchmill.loaders.pipelines.ffcv.compiled import CompiledFile, checked_source, lanes_of
from patchmill.loaders.pipelines.ffcv.lane import OUTCOMES, STAGES
from patchmill.loaders.pipelines.ffcv.paste import ABSENT, FAILED
from patchmill.loaders.pipelines.ffcv.pasting import Pasting
from patchmill.loaders.pipelines.ffcv.view_decoder import BatchArrays, ViewDecoder
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.worker import Worker


class FfcvJob(Job):
    """A batch that is a single task."""

    arrays: BatchArrays

    def __len__(self) -> int:
        return 1


class FfcvPipeline(StagedPipeline):
    name = "ffcv"

    def __init__(self, config: PipelineConfig) -> None:
        source, lanes = checked_source(config), lanes_of(config)
        super().__init__(config, stages.FFCV, lanes)
        del self._workers[1:]  # one thread calls the compiled code, whose threads are the lanes
        self._memory = self._pool = BlockPool(
            layout.elements(config.targets, config.max_batch), config.dtype
        )
        self._pasting = None if config.masks is None else Pasting(config)
        self._decoder = ViewDecoder(
            config.laws, config.targets, config.seed, config.dtype, config.channels_last, source,
            self._pasting, config.max_pixels,
        )  # fmt: skip
        self._decoder.ledger = config.ledger
        self._file = CompiledFile(source, self._decoder, config.max_batch, lanes)
        self._make_batch(0, np.empty(0, np.int64))  # compiles

    def run(self, batches: Iterator[BatchIds]) -> Run:
        self._decoder.error = None
        if self._pasting is not None:
            self._pasting.error = None
        jobs = (FfcvJob(epoch, ids, self._config.views, Countdown(1)) for epoch, ids in batches)
        return self._start(self._run_job, jobs, self._hand_over)

    def _run_job(self, worker: Worker, job: FfcvJob, _: range) -> None:
        """All stages of a whole batch."""
        job.arrays = self._make_batch(job.epoch, job.requested)
        ids = job.arrays[1][:, 0]
        self._decoder.check(ids)
        self._count(job.arrays[4])
        if self._config.extra is not None:
            self._apply_extra(self._config.extra, worker, job, ids)

    def _count(self, counts: np.ndarray) -> None:
        """Add up the counts of the lanes for a batch."""
        for counters, lane in zip(self._counters.workers, counts, strict=True):
            for stage, items, nanoseconds in zip(STAGES, lane[0::2], lane[1::2], strict=False):
                if stage in counters.items:
                    counters.add(stage, int(nanoseconds), int(items))
            counters.unmasked += int(lane[OUTCOMES + ABSENT : OUTCOMES + FAILED].sum())
        if self._pasting is not None:
            self._pasting.count(counts[:, OUTCOMES:].sum(0))

    def _apply_extra(self, extra: Extra, worker: Worker, job: FfcvJob, ids: np.ndarray) -> None:
        """Apply the recipe's operations to the batch, its parts on all cores."""
        config, began = self._config, time.perf_counter_ns()
        flat = torch.from_numpy(job.arrays[0]).view(config.dtype).flatten()
        views = layout.views_by_group(flat, config.targets, len(ids), config.channels_last)
        parts = extra.parts(len(ids))
        parallel_for(lambda i: extra.apply(views, job.epoch, ids, parts[i]), len(parts))
        extra.finish(views, job.epoch, ids)
        worker.counters.add("extra", time.perf_counter_ns() - began, len(ids))

    def _make_batch(self, epoch: int, ids: np.ndarray) -> BatchArrays:
        """Make the views of these samples, in memory from the pool."""
        (pixels, _), *others = self._decoder.memory(epoch)
        flat = self._pool.acquire()[: len(ids) * pixels[0]].view(len(ids), *pixels)
        two_bytes = flat.dtype in (torch.bfloat16, torch.float16)
        memory = [(flat.view(torch.uint16) if two_bytes else flat).numpy()]
        memory += [np.empty((len(ids), *shape), dtype) for shape, dtype in others]
        return self._file(ids, tuple(memory))

    def _hand_over(self, job: FfcvJob) -> FilledBatch:
        pixels, ids, shapes, rows, _ = job.arrays
        ids = ids[:, 0]
        labels = self._config.labels(ids)
        return FilledBatch(
            ids,
            torch.from_numpy(pixels).view(self._config.dtype).flatten(),
            None if labels is None else torch.from_numpy(labels),
            rows.view(ROW),
            shapes,
        )
