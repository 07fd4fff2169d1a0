"""Gather plain JPEGs for DALI a chunk at a time, without per-image Python overhead.

Three compiled calls that release the GIL read the images of a chunk, parse their headers and plan
them. Images that are not plain JPEGs, or cannot be read this way, are processed one by one.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from patchmill.loaders.decode import jpeg_scan
from patchmill.loaders.decode.jpeg_scan import PLAIN, SURE
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.dali.decoder import has_decodable_header
from patchmill.loaders.pipelines.gpu.arena import NOT_IN_ARENA
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.plan import draw

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.dali.job import DaliJob

BLOCK_BYTES = 32 << 20  # of encoded images
_SPARE = 1.5  # memory for a chunk, relative to the mean size of images so far
_MOST_KNOWN = 1 << 26  # samples whose headers are remembered


class Gathered(NamedTuple):
    """Slots that were gathered, and the others with any data already read."""

    slots: list[int]
    left: Sequence[int]
    encoded: Sequence[bytes | None] | None = None


class Gatherer:
    """Gathers the chunks of all workers of a loader, in `stage`."""

    def __init__(self, config: PipelineConfig, stage: str) -> None:
        self._config, self._stage, self._seed = config, stage, np.uint64(config.seed)
        self._pool = BlockPool(BLOCK_BYTES, torch.uint8)
        self._memory: weakref.WeakKeyDictionary[Worker, EncodedMemory] = weakref.WeakKeyDictionary()
        # Hashes of the headers that DALI's parser had to check and accepted: untouched pages of
        # zeros until there are any.
        self._known = np.zeros(min(config.source.sample_count or 0, _MOST_KNOWN), np.uint32)

    def gather(
        self, worker: Worker, job: DaliJob, slots: Sequence[int], refused: Collection[int]
    ) -> Gathered:
        """Read and plan the plain JPEGs of a chunk, except ids that DALI `refused`."""
        if self._config.decoded is not None or job.raw is not None or not slots:
            return Gathered([], slots)
        began, at = time.perf_counter_ns(), np.array(slots, np.int64)
        ids = job.requested[at]
        memory = self._memory_of(worker)
        spans = memory.read(self._config, ids)
        if spans is None:
            return Gathered([], slots)
        ledger = worker.ledger
        if len(ledger) or refused:
            spans[[id in ledger or id in refused for id in ids.tolist()]] = -1
        looked, kinds = time.perf_counter_ns(), memory.kinds[: len(at)]
        sure = self._scan(memory, spans, at, job)
        images = [memory.free[start:end] for start, end in spans.tolist()]
        made, left, encoded = at, list[int](), None
        if sure < len(at):
            self._ask(images, ids, memory)
            is_made = kinds == SURE
            made = at[is_made]
            left = at[~is_made].tolist()
            encoded = [
                images[i].tobytes() if spans[i, 0] >= 0 else None
                for i in np.flatnonzero(~is_made).tolist()
            ]
            images = [images[i] for i in np.flatnonzero(is_made).tolist()]
        if job.budget is not None:
            shapes = job.shapes[made]
            taken = job.budget.take_first(shapes[:, 0].astype(np.int64) * shapes[:, 1])
            if taken < len(made):
                job.postpone(made[taken:].tolist())
                made, images = made[:taken], images[:taken]
        for slot, image in zip(made.tolist(), images, strict=True):
            job.encoded[slot] = image
        job.locations[made] = NOT_IN_ARENA
        counters, planned = worker.counters, time.perf_counter_ns()
        counters.add("read", looked - began, len(made))
        counters.add(self._stage, planned - looked, len(made))
        draw.draw_slots(
            self._config.laws, self._seed, job.epoch, made, job.ids, job.shapes, job.rows
        )
        counters.add("plan", time.perf_counter_ns() - planned, len(made))
        return Gathered(made.tolist(), left, encoded)

    def clear(self) -> None:
        """Free memory that holds no images."""
        self._memory.clear()
        self._pool.clear()

    def _memory_of(self, worker: Worker) -> EncodedMemory:
        if (memory := self._memory.get(worker)) is None:
            memory = self._memory[worker] = EncodedMemory(self._pool)
        return memory

    def _scan(
        self, memory: EncodedMemory, spans: np.ndarray, slots: np.ndarray, job: DaliJob
    ) -> int:
        return jpeg_scan.scan(
            memory.free, spans, slots, job.requested, self._known, memory.kinds, memory.hashes,
            job.ids, job.shapes, self._config.max_pixels,
        )  # fmt: skip

    def _ask(self, images: Sequence[np.ndarray], ids: np.ndarray, memory: EncodedMemory) -> None:
        """Let DALI's parser check headers that it may reject; remember those it accepts."""
        for i in np.flatnonzero(memory.kinds[: len(ids)] == PLAIN).tolist():
            if has_decodable_header(images[i], self._config.max_pixels):
                memory.kinds[i] = SURE
                if memory.hashes[i] and ids[i] < len(self._known):
                    self._known[ids[i]] = memory.hashes[i]


class EncodedMemory:
    """One worker's memory for encoded images; a block returns once none of its arrays is alive."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self.free = np.empty(0, np.uint8)  # from the start of the last chunk
        self._used = 0  # bytes of that chunk
        self._mean = 0.0  # bytes per image
        self.kinds, self.hashes = np.empty(0, np.uint8), np.empty(0, np.uint32)

    def read(self, config: PipelineConfig, ids: np.ndarray) -> np.ndarray | None:
        """Read as many of these samples as the source can; return their spans in `free`.

        The span of a sample that is left to `Source.read` is -1. None if all of them are.
        """
        if len(ids) > len(self.kinds):
            self.kinds, self.hashes = np.empty(len(ids), np.uint8), np.empty(len(ids), np.uint32)
        free = len(self.free) - self._used
        if free < max(min(int(_SPARE * self._mean * len(ids)), BLOCK_BYTES), 1):
            self.free = self._pool.acquire().numpy()
        else:
            self.free = self.free[self._used :]
        spans = config.source.read_into(ids, self.free)
        if spans is None:
            self._used = 0
            return None
        self._used = max(int(spans[:, 1].max()), 0)
        self._mean = self._used / len(ids) or self._mean
        return spans
