"""Pipeline `ffcv` on a GPU: FFCV's threads decode into pinned memory, the GPU makes the views.

A raw image is copied there from the file's memory map. Images that compiled code cannot decode,
masks and backgrounds are processed as in pipeline `threads`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from patchmill.kernels.common.parallel import parallel_ranges
from patchmill.loaders.pipelines import BatchIds, Run, stages
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.ffcv.compiled import CompiledFile, checked_source, lanes_of
from patchmill.loaders.pipelines.ffcv.ragged import RaggedBatch, RaggedDecoder, within_budget
from patchmill.loaders.pipelines.gpu.arena import ArenaJob, pack_paste_inputs, plan_cached
from patchmill.loaders.pipelines.gpu.pipeline import GpuThreadsPipeline, decode
from patchmill.loaders.pipelines.worker import Worker


class FfcvGpuPipeline(GpuThreadsPipeline):
    """Pipeline `threads`, but a worker decodes a whole batch of a .beton in one call."""

    name = "ffcv"

    def __init__(self, config: PipelineConfig) -> None:
        source, lanes = checked_source(config), lanes_of(config)
        super().__init__(config, stages.FFCV_GPU, lanes)
        self._decoder = RaggedDecoder(config.laws, config.seed)
        self._file = CompiledFile(source, self._decoder, config.max_batch, lanes)
        self._helpers = self._workers  # each packs part of a batch's masks and backgrounds
        self._workers = self._workers[:1]  # one thread calls the compiled code
        self._decode(ArenaJob(0, np.empty(0, np.int64), config.views, self._views.arena()), [])

    def run(self, batches: Iterator[BatchIds]) -> Run:
        jobs = (self._job(*ids) for ids in batches)
        return self._start(self._load, jobs, self._views.hand_over, self._feed)

    def _job(self, epoch: int, ids: np.ndarray) -> ArenaJob:
        job = super()._job(epoch, ids)
        job.single_task = True
        return job

    def _load(self, worker: Worker, job: ArenaJob, slots: range) -> None:
        """The workers' stages of a whole batch."""
        cached, others = plan_cached(worker, job, slots)
        others = within_budget(job, others, self._file.records, self._config.max_pixels)
        made, left = self._decode(job, others) if len(others) else ([], [])
        for slot in left:
            decode(worker, job, range(slot, slot + 1))
        if worker.samples.pastes:
            self._pack([*cached, *made], job)

    def _tasks_of(self, job: ArenaJob) -> list[range]:
        return [range(len(job))]

    def _decode(self, job: ArenaJob, slots: Sequence[int]) -> tuple[list[int], list[int]]:
        """Decode and plan these samples in compiled code; return slots done and slots left."""
        batch = RaggedBatch(job, slots, self._file.records, self._config.max_pixels)
        _, *needs = self._decoder.memory(job.epoch)
        memory = [np.empty((len(batch.ids), *shape), dtype) for shape, dtype in needs]
        _, decoded, rows, counts = self._file(batch.ids, (batch.places, *memory))
        for counters, lane in zip(self._counters.workers, counts, strict=True):
            counters.add("decode", int(lane[1]), int(lane[0]))
            counters.add("plan", int(lane[3]), int(lane[2]))
        return batch.finish(decoded, rows)

    def _pack(self, slots: Sequence[int], job: ArenaJob) -> None:
        """Pack the masks and backgrounds of these samples, in a few threads."""
        helpers = iter(self._helpers)

        def pack(start: int, stop: int) -> None:
            pack_paste_inputs(next(helpers), job, slots[start:stop], "decode")

        parallel_ranges(pack, len(slots), -(-len(slots) // len(self._helpers)))
