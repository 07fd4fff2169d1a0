"""Views rendered on a GPU from images decoded elsewhere: in a batch's arena, or by DALI in place.

One feeder thread queues everything on a side stream, so that it overlaps with the training step.
Memory bounds, with at most MOST_QUEUED batches queued: batch memory of the batches made ahead and
of those that the user keeps; uploaded images of the one batch being rendered, because its successor
on the same stream reuses the memory; DALI's images of the batches queued and of those in DALI; and
the device cache, if there is one.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import torch

from patchmill.kernels.common.upload import upload
from patchmill.kernels.views import layout
from patchmill.kernels.views.gpu import render
from patchmill.kernels.views.gpu.tables import ImagePointers, Images
from patchmill.loaders.pipelines import FilledBatch
from patchmill.loaders.pipelines.config import PipelineConfig
from patchmill.loaders.pipelines.extra import Extra
from patchmill.loaders.pipelines.gpu.arena import (
    BLOCK_BYTES,
    NOT_IN_ARENA,
    Allocation,
    Arena,
    ArenaJob,
    PackedImages,
)
from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache
from patchmill.loaders.pipelines.gpu.side_stream import QueuedWork, SideStream
from patchmill.loaders.pipelines.memory import BlockPool, DeviceBlockPool, out_of_memory
from patchmill.loaders.pipelines.worker import Worker
from patchmill.loaders.stats import Counters

log = logging.getLogger("patchmill")

_WARM_UP = 16  # images: enough for each kind of decision to occur


class GpuViews:
    """Batch memory of a pipeline that renders on the GPU. Building it compiles the kernels."""

    def __init__(self, config: PipelineConfig, counters: Counters) -> None:
        """`counters` have the stages "upload" and "render", and "extra" for custom operations."""
        device, numbers = config.device, layout.elements(config.targets, config.max_batch)
        self.counters = counters
        self._config, self.side = config, SideStream(device, counters)
        self._batch_bytes = numbers * config.dtype.itemsize
        self.cache = self._open_cache()
        cuda = device.type == "cuda"
        self._arena_pool = BlockPool(BLOCK_BYTES, torch.uint8, pinned=cuda)
        self._batch_pool: BlockPool | DeviceBlockPool
        if cuda:
            self._batch_pool = DeviceBlockPool(numbers, config.dtype, device)
        else:
            self._batch_pool = BlockPool(numbers, config.dtype)
        if cuda:
            self._warm_up()

    def arena(self) -> Arena:
        return Arena(self._arena_pool)

    def prepare(self, job: ArenaJob) -> None:
        """Lend a job the device cache and the source's decoded images."""
        job.cache, job.raw = self.cache, self._config.source.decoded_images()
        if job.cache is not None and self._config.masks is None:
            job.single_task = job.cache.holds(job.requested)

    def render(self, job: ArenaJob, decoded: Images | None = None, owner: object = None) -> None:
        """Queue the upload and rendering of a job; `owner` keeps the memory of `decoded` alive."""
        try:
            self._queue(job, self._config.labels(job.ids), decoded, owner)
        except torch.cuda.OutOfMemoryError:
            raise out_of_memory(self._batch_bytes) from None

    def _queue(
        self,
        job: ArenaJob,
        labels: np.ndarray | None,
        decoded: Images | None = None,
        owner: object = None,
    ) -> None:
        with self.side.queue(len(job)) as queued:
            job.flat = self._acquire(job)
            self._upload_labels(job, labels)
            self._render(job, job.flat, queued, decoded, owner)
            self._complete(job, queued)
        job.forget_images()

    def render_sub_batch(
        self,
        job: ArenaJob,
        slots: np.ndarray,
        sub_batch: ArenaJob,
        decoded: Images | None = None,
        owner: object = None,
    ) -> None:
        """Render the slots of a job that `sub_batch` holds, and wait until that is done."""
        config = self._config
        try:
            with self.side.queue(len(sub_batch)) as queued:
                job.flat = self._acquire(job) if job.flat is None else job.flat
                elements = layout.elements(config.targets, len(sub_batch))
                flat = torch.empty(elements, dtype=config.dtype, device=config.device)
                self._render(sub_batch, flat, queued, decoded, owner)
                at = upload(torch.from_numpy(slots), config.device)
                mine = layout.views_by_group(
                    flat, config.targets, len(sub_batch), config.channels_last
                )
                for name, views in self._views_of(job).items():
                    views.index_copy_(0, at, mine[name])
                queued.keep_alive(flat, at)
        except torch.cuda.OutOfMemoryError:
            raise out_of_memory(self._batch_bytes) from None
        job.ids[slots], job.shapes[slots], job.rows[slots] = (
            sub_batch.ids,
            sub_batch.shapes,
            sub_batch.rows,
        )
        self.side.synchronize()

    def finish(self, job: ArenaJob) -> None:
        """Complete a job whose views were rendered in sub-batches."""
        labels = self._config.labels(job.ids)
        with self.side.queue(len(job)) as queued:
            self._upload_labels(job, labels)
            queued.end_stage("upload")
            self._complete(job, queued)

    def _acquire(self, job: ArenaJob) -> torch.Tensor:
        """Memory for a job's views."""
        return self._batch_pool.acquire()[: layout.elements(self._config.targets, len(job))]

    def _render(
        self,
        job: ArenaJob,
        flat: torch.Tensor,
        queued: QueuedWork,
        decoded: Images | None,
        owner: object,
    ) -> None:
        """Queue the upload of a job's images and the rendering of its views into `flat`."""
        config, arena = self._config, job.arena
        blocks = [
            self._upload(memory, used)
            for memory, used in zip(arena.memory, arena.used, strict=True)
        ]
        addresses = [block.data_ptr() for block in blocks]
        images = _image_table(job, addresses, decoded, config.masks is not None)
        if job.cache is not None:
            job.cache.add(job.ids, images)
        queued.keep_alive(arena, owner, job.cache)
        queued.end_stage("upload")
        render.render_into(flat, images, job.rows, config.targets, config.channels_last)
        queued.end_stage("render")

    def _upload_labels(self, job: ArenaJob, labels: np.ndarray | None) -> None:
        if labels is not None:
            job.labels = upload(torch.from_numpy(labels), self._config.device)

    def _complete(self, job: ArenaJob, queued: QueuedWork) -> None:
        """Queue the remaining work once a job's views are rendered."""
        if self._config.extra is not None:
            self._apply_extra(self._config.extra, job)
            queued.end_stage("extra")
        job.queued = queued

    def _apply_extra(self, extra: Extra, job: ArenaJob) -> None:
        """Queue the recipe's operations; their memory belongs to the stream."""
        views = self._views_of(job)
        for part in extra.parts(len(job)):
            extra.apply(views, job.epoch, job.ids, part)
        extra.finish(views, job.epoch, job.ids)

    def _views_of(self, job: ArenaJob) -> dict[str, torch.Tensor]:
        assert job.flat is not None
        config = self._config
        return layout.views_by_group(job.flat, config.targets, len(job), config.channels_last)

    def hand_over(self, job: ArenaJob) -> FilledBatch:
        """The batch, for the current stream of the calling thread."""
        assert job.flat is not None and job.queued is not None
        if job.queued.event is not None:
            current = torch.cuda.current_stream(self._config.device)
            current.wait_event(job.queued.event)
            if isinstance(self._batch_pool, DeviceBlockPool):
                self._batch_pool.record_reader(job.flat, current)
            if job.labels is not None:
                job.labels.record_stream(current)
        return FilledBatch(job.ids, job.flat, job.labels, job.rows, job.shapes)

    def synchronize(self) -> None:
        """Wait for all queued work, and release the memory that it kept alive."""
        self.side.synchronize()

    def clear(self) -> None:
        self.cache = self._open_cache()
        self._arena_pool.clear()
        self._batch_pool.clear()

    def _open_cache(self) -> DeviceCache | None:
        limit, source = self._config.device_cache, self._config.source
        if limit is None or source.sample_count is None:
            return None
        return DeviceCache(limit, source.sample_count, self._config.device)

    def _upload(self, memory: torch.Tensor, used: int) -> torch.Tensor:
        """Copy the used part to the device, into a full block: equal sizes suit the allocator."""
        if self._config.device.type != "cuda":
            return memory
        on_device = torch.empty_like(memory, device=self._config.device)
        on_device[:used].copy_(memory[:used], non_blocking=True)
        return on_device

    def _warm_up(self) -> None:
        """Compile or load the kernels before anything waits for the first batch."""
        notice = "compiling the GPU kernels for this device: some seconds, once"
        timer = threading.Timer(1.0, log.warning, (notice,))
        timer.daemon = True
        timer.start()
        size = min(_WARM_UP, self._config.max_batch)
        job = ArenaJob(0, np.arange(size), self._config.views, self.arena())
        if self.cache is not None:
            job.cache = DeviceCache(_WARM_UP * 8 * 8 * 3, size, self._config.device)
        worker = Worker(self._config, Counters(("plan",)))
        for slot in range(size):
            image = job.arena.allocate(8 * 8 * 3)
            image.memory[:] = 0
            job.locations[slot] = image[:2]
            if self._config.masks is not None:
                job.masks.put(slot, Allocation(image.block, image.offset, image.memory[:64]), 8, 8)
                job.backgrounds.put(slot, image, 8, 8)
        worker.plan(job, range(size), range(size), [(8, 8)] * size)
        try:
            self._queue(job, labels=None)
            self.synchronize()
        finally:
            timer.cancel()


def _image_table(job: ArenaJob, blocks: list[int], decoded: Images | None, pastes: bool) -> Images:
    """Device addresses of a batch's images: in the uploaded blocks, or in `decoded` by DALI."""
    addresses = np.array([*blocks, 0, 0], np.int64)  # the last are IN_CACHE's and NOT_IN_ARENA's
    block, offset = job.locations.T
    pointers = addresses[block] + offset
    pitches = 3 * job.shapes[:, 1].astype(np.int64)
    if decoded is not None:
        by_dali = block == NOT_IN_ARENA
        pointers[by_dali], pitches[by_dali] = decoded.pointers, decoded.pitches
    masks = backgrounds = None
    if pastes:
        masks = _packed_table(job.masks, addresses, 1)
        backgrounds = _packed_table(job.backgrounds, addresses, 3)
    return Images(pointers, job.shapes.astype(np.int64), pitches, masks, backgrounds)


def _packed_table(packed: PackedImages, addresses: np.ndarray, channels: int) -> ImagePointers:
    block, offset = packed.locations.T
    pointers = np.where(block == NOT_IN_ARENA, 0, addresses[block] + offset)
    shapes = packed.shapes.astype(np.int64)
    return ImagePointers(pointers, shapes, channels * shapes[:, 1])
