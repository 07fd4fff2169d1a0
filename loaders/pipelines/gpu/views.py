"""Views made on a GPU of images that were decoded elsewhere: packed by CPU threads, or in place.

Everything is queued on a stream of its own by the one thread that finishes batches, so that it
hides behind the training step. Bounds, with `ahead` = prefetch + 2 batches queued at most: the
batch memory alive is that of the batches which are made ahead, plus those that the user keeps; the
memory of decoded images is that of the one batch being rendered, since its successor on the same
stream takes it over.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import torch

from patchmill.kernels.views import layout
from patchmill.kernels.views.gpu import render
from patchmill.kernels.views.gpu.tables import Images, Pictures
from patchmill.loaders.pipelines import Filled
from patchmill.loaders.pipelines.gpu.arena import BLOCK, NOWHERE, Arena, Packed, PackedJob, Place
from patchmill.loaders.pipelines.gpu.side_stream import Side
from patchmill.loaders.pipelines.memory import Blocks, DeviceBlocks, out_of_memory
from patchmill.loaders.pipelines.worker import Taken, Work, Worker
from patchmill.loaders.stats import Counters

log = logging.getLogger("patchmill")

STAGES = ("upload", "render")
_WARM_UP = 16  # images: among so many there is one with each kind of decision


class GpuViews:
    def __init__(self, work: Work) -> None:
        device, numbers = work.device, layout.elements(work.targets, work.most)
        self.counters = Counters(STAGES)
        self._work, self._side = work, Side(device, self.counters, work.prefetch + 2)
        self._batch_bytes = numbers * work.dtype.itemsize
        cuda = device.type == "cuda"
        self._packed = Blocks(BLOCK, torch.uint8, pinned=cuda)
        self._batches: Blocks | DeviceBlocks
        if cuda:
            self._batches = DeviceBlocks(numbers, work.dtype, device)
        else:
            self._batches = Blocks(numbers, work.dtype)
        if cuda:
            self._warm_up()

    @property
    def stream(self) -> torch.cuda.Stream | None:
        return self._side.stream

    def arena(self) -> Arena:
        return Arena(self._packed)

    def make(self, job: PackedJob, decoded: Images | None = None, owner: object = None) -> None:
        """Queue what makes all views of the job; `owner` keeps the memory of `decoded` alive."""
        try:
            self._queue(job, self._work.labels(job.ids), decoded, owner)
        except torch.cuda.OutOfMemoryError:
            raise out_of_memory(self._batch_bytes) from None

    def _queue(
        self,
        job: PackedJob,
        labels: np.ndarray | None,
        decoded: Images | None = None,
        owner: object = None,
    ) -> None:
        work, arena, size = self._work, job.arena, len(job)
        with self._side.queue(size) as queued:
            job.flat = self._batches.take()[: layout.elements(work.targets, size)]
            blocks = [
                self._upload(*packed) for packed in zip(arena.memory, arena.used, strict=True)
            ]
            if labels is not None:
                job.labels = self._upload(torch.from_numpy(labels), len(labels))
            queued.keep(arena, owner)
            queued.done("upload")
            addresses = [block.data_ptr() for block in blocks]
            images = _images(job, addresses, decoded, work.masks is not None)
            render.render_into(job.flat, images, job.rows, work.targets, work.channels_last)
            queued.done("render")
        job.queued = queued

    def hand_over(self, job: PackedJob) -> Filled:
        """The batch, for the current stream of the calling thread."""
        assert job.flat is not None and job.queued is not None
        if job.queued.event is not None:
            current = torch.cuda.current_stream(self._work.device)
            current.wait_event(job.queued.event)
            if isinstance(self._batches, DeviceBlocks):
                self._batches.read_on(job.flat, current)
            if job.labels is not None:
                job.labels.record_stream(current)
        return Filled(job.ids, job.flat, job.labels, job.rows, job.shapes)

    def finish(self) -> None:
        """Wait for all that is queued, so that what was kept for it goes."""
        self._side.finish()

    def clear(self) -> None:
        self._packed.clear()
        self._batches.clear()

    def _upload(self, memory: torch.Tensor, used: int) -> torch.Tensor:
        """On the device, in a block of the same size: so the allocator has one size to reuse."""
        if self._work.device.type != "cuda":
            return memory
        there = torch.empty_like(memory, device=self._work.device)
        there[:used].copy_(memory[:used], non_blocking=True)
        return there

    def _warm_up(self) -> None:
        """Compile the kernels, or load them, before the first batch is waited for."""
        notice = "compiling the GPU kernels for this device: some seconds, once"
        timer = threading.Timer(1.0, log.warning, (notice,))
        timer.daemon = True
        timer.start()
        size = min(_WARM_UP, self._work.most)
        job = PackedJob(0, np.arange(size), self._work.views, self.arena())
        worker = Worker(self._work, Counters(("plan",)))
        for slot in range(size):
            place = job.arena.room(8 * 8 * 3)
            place.memory[:] = 0
            job.places[slot] = place[:2]
            worker.plan(job, slot, slot, Taken(8, 8, None))
            if self._work.masks is not None:
                job.masks.put(slot, Place(place.block, place.offset, place.memory[:64]), 8, 8)
                job.companions.put(slot, place, 8, 8)
        try:
            self._queue(job, labels=None)
            self.finish()
        finally:
            timer.cancel()


def _images(job: PackedJob, blocks: list[int], decoded: Images | None, pastes: bool) -> Images:
    """Where the images of the batch lie: those of a decoder of batches in its own places."""
    addresses = np.array([*blocks, 0], np.int64)  # of the blocks, and of NOWHERE
    block, offset = job.places.T
    pointers = addresses[block] + offset
    pitches = 3 * job.shapes[:, 1].astype(np.int64)
    if decoded is not None:
        own = block == NOWHERE
        pointers[own], pitches[own] = decoded.pointers, decoded.pitches
    masks = companions = None
    if pastes:
        masks = _pictures(job.masks, addresses, 1)
        companions = _pictures(job.companions, addresses, 3)
    return Images(pointers, job.shapes.astype(np.int64), pitches, masks, companions)


def _pictures(packed: Packed, addresses: np.ndarray, channels: int) -> Pictures:
    block, offset = packed.places.T
    pointers = np.where(block == NOWHERE, 0, addresses[block] + offset)
    shapes = packed.shapes.astype(np.int64)
    return Pictures(pointers, shapes, channels * shapes[:, 1])
