"""Pipeline `ffcv`: FFCV compiles and runs the work of a batch; the source is a .beton file.

FFCV's loader opens the file and compiles. A worker thread calls the compiled code, one batch after
another in the loader's order. FFCV's own thread is not used, because it waits for ever after an
error or an early end of the iteration, and its batches live in memory that it soon writes again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numba
import numpy as np
import torch

from patchmill.kernels.common.compiling import announce_compilation
from patchmill.kernels.common.parallel import parallel_for
from patchmill.kernels.views import layout
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.pipelines import BatchIds, FilledBatch, Run, stages
from patchmill.loaders.pipelines.base import StagedPipeline
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.extra import Extra
from patchmill.loaders.pipelines.ffcv import workarounds  # before all of FFCV
from patchmill.loaders.pipelines.ffcv.lane import STAGES
from patchmill.loaders.pipelines.ffcv.view_decoder import BatchArrays, ViewDecoder
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.sources.beton.source import Beton

with workarounds.preserve_thread_counts():
    from ffcv.loader import Loader, OrderOption


class FfcvJob(Job):
    """A batch that is a single task."""

    arrays: BatchArrays

    def __len__(self) -> int:
        return 1


class FfcvPipeline(StagedPipeline):
    name = "ffcv"

    def __init__(self, config: PipelineConfig) -> None:
        source = config.source
        if not isinstance(source, Beton):
            raise MillError(
                f"pipeline 'ffcv' reads .beton files, which {source.name} is not: write one, or "
                "take pipeline='threads'"
            )
        if config.masks is not None:
            raise MillError("pipeline 'ffcv' does no copy-paste: take pipeline='threads'")
        if config.decoded is not None:
            raise MillError("pipeline 'ffcv' has no decoded cache: take pipeline='threads'")
        if config.device.type != "cpu":
            raise MillError("pipeline 'ffcv' makes its views on the CPU: take device='cpu'")
        self._lanes = min(config.workers, numba.config.NUMBA_NUM_THREADS)
        super().__init__(config, stages.FFCV, lanes=self._lanes)
        del self._workers[1:]  # one thread calls the compiled code, whose threads are the lanes
        self._memory = self._pool = BlockPool(
            layout.elements(config.targets, config.max_batch), config.dtype
        )
        self._decoder = ViewDecoder(
            config.laws, config.targets, config.seed, config.dtype, config.channels_last, source
        )
        self._decoder.ledger = config.ledger
        with announce_compilation():  # our kernels; FFCV compiles its own for each loader
            self._loader = self._compile(source)
        storage = self._loader.memory_manager.schedule_epoch([])
        storage.__enter__()  # maps the file
        self._storage = storage.state
        self._make_batch(0, np.empty(0, np.int64))  # compiles

    def run(self, batches: Iterator[BatchIds]) -> Run:
        self._decoder.error = None
        jobs = (FfcvJob(epoch, ids, self._config.views, Countdown(1)) for epoch, ids in batches)
        return self._start(self._run_job, jobs, self._hand_over)

    def _compile(self, source: Beton) -> Loader:
        pipelines = dict.fromkeys(source.fields) | {source.field: [self._decoder]}
        with workarounds.preserve_thread_counts():
            return Loader(
                source.path,
                self._config.max_batch,
                num_workers=self._lanes,
                os_cache=True,
                order=OrderOption.SEQUENTIAL,
                pipelines=pipelines,
            )

    def _run_job(self, worker: Worker, job: FfcvJob, _: range) -> None:
        """All stages of a whole batch."""
        job.arrays = self._make_batch(job.epoch, job.requested)
        ids, times = job.arrays[1][:, 0], job.arrays[4]
        self._decoder.check(ids)
        for counters, lane in zip(self._counters.workers, times, strict=True):
            for stage, nanoseconds in zip(STAGES, lane[1:], strict=True):
                counters.add(stage, int(nanoseconds), int(lane[0]))
        if self._config.extra is not None:
            self._apply_extra(self._config.extra, worker, job, ids)

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
        """Call the compiled code as FFCV's thread would, with memory that FFCV does not reuse."""
        numba.set_num_threads(self._lanes)
        (pixels, _), *others = self._decoder.memory(epoch)
        flat = self._pool.acquire()[: len(ids) * pixels[0]].view(len(ids), *pixels)
        two_bytes = flat.dtype in (torch.bfloat16, torch.float16)
        memory = [(flat.view(torch.uint16) if two_bytes else flat).numpy()]
        memory += [np.empty((len(ids), *shape), dtype) for shape, dtype in others]
        loader = self._loader
        (node,) = (node.id for node in loader.graph.root_nodes)
        (compiled, _), *_ = loader.code[0]
        (arrays,) = compiled(
            batch_indices=ids,
            metadata=loader.reader.metadata,
            storage_state=self._storage,
            **{f"memory_{node}": tuple(memory), f"shared_memory_{node}": None},
        )
        return arrays

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
