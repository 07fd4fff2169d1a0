"""Arena: the decoded images of a batch, packed into a few blocks that are uploaded as a whole."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from patchmill.loaders.decode.decoder import MAX_PIXELS, decode
from patchmill.loaders.pipelines.budget import PixelBudget
from patchmill.loaders.pipelines.gpu.side_stream import QueuedWork
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import BlockPool
from patchmill.loaders.pipelines.samples import LoadedImage
from patchmill.loaders.pipelines.worker import Worker

if TYPE_CHECKING:
    from patchmill.loaders.pipelines.gpu.device_cache import DeviceCache

BLOCK_BYTES = 32 << 20  # about fifty photos
NOT_IN_ARENA = -1  # as a block number
IN_CACHE = -2  # as a block number: the offset is an address in the device cache
LATE = -3  # as a block number: beyond the batch's pixel budget, to be made later
_ALIGNMENT = 16
_ON_DEVICE = np.empty(0, np.uint8)  # placeholder for memory that the host cannot access


class Allocation(NamedTuple):
    """Memory of one image in an arena."""

    block: int
    offset: int  # bytes from the start of the block
    memory: np.ndarray


class Arena:
    """Bump allocator of one batch, over blocks of BLOCK_BYTES from `pool`.

    The blocks return to the pool when the arena and all arrays of its memory are gone. An image
    larger than a block gets one of its own size, which is not pooled.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self.memory: list[torch.Tensor] = []  # the blocks
        self.used: list[int] = []  # bytes allocated in each
        self._current = -1

    def allocate(self, size: int) -> Allocation:
        with self._lock:
            if size > BLOCK_BYTES:
                return self._open(torch.from_numpy(self._pool.allocate(size)), size)
            if self._current < 0 or self.used[self._current] + size > BLOCK_BYTES:
                allocation = self._open(self._pool.acquire(), size)
                self._current = allocation.block
                return allocation
            return self._bump(self._current, size)

    def _open(self, memory: torch.Tensor, size: int) -> Allocation:
        self.memory.append(memory)
        self.used.append(0)
        return self._bump(len(self.memory) - 1, size)

    def _bump(self, block: int, size: int) -> Allocation:
        offset = self.used[block]
        self.used[block] = offset + -(-size // _ALIGNMENT) * _ALIGNMENT
        return Allocation(block, offset, self.memory[block].numpy()[offset : offset + size])

    def image(self, location: tuple[int, int], height: int, width: int) -> np.ndarray:
        """The image at (block, offset)."""
        block, offset = location
        memory = self.memory[block].numpy()[offset : offset + height * width * 3]
        return memory.reshape(height, width, 3)


class PackedImages:
    """At most one mask or background per sample of a batch, in the batch's arena."""

    def __init__(self, count: int) -> None:
        self.locations = np.full((count, 2), NOT_IN_ARENA, np.int64)  # block and offset
        self.shapes = np.zeros((count, 2), np.int32)  # height and width; 0 if there is none
        self._memory: list[np.ndarray | None] = [None] * count

    def put(
        self, slot: int, allocation: Allocation | None, height: int = 0, width: int = 0
    ) -> None:
        self.locations[slot] = (NOT_IN_ARENA, 0) if allocation is None else allocation[:2]
        self.shapes[slot] = height, width
        self._memory[slot] = None if allocation is None else allocation.memory

    def keep(self, slots: np.ndarray) -> None:
        """Keep these slots and drop the others."""
        self.locations, self.shapes = self.locations[slots], self.shapes[slots]
        self._memory = [self._memory[slot] for slot in slots.tolist()]

    def array(self, slot: int, *channels: int) -> np.ndarray:
        """The image of a slot; empty if there is none."""
        memory = self._memory[slot]
        pixels = np.empty(0, np.uint8) if memory is None else memory
        return pixels.reshape(*self.shapes[slot], *channels)


class ArenaJob(Job):
    """A batch whose decoded images lie in its arena, in DALI's memory, or in the device cache.

    A job uses the same cache throughout, and keeps its memory alive.
    """

    cache: DeviceCache | None = None

    def __init__(
        self,
        epoch: int,
        requested: np.ndarray,
        views: int,
        arena: Arena,
        most_pixels: int | None = None,
    ) -> None:
        super().__init__(epoch, requested, views, Countdown(len(requested)))
        self.arena = arena
        self.budget: PixelBudget | None = None  # of images
        self.background_budget: PixelBudget | None = None
        if most_pixels is not None:
            self.budget, self.background_budget = PixelBudget(most_pixels), PixelBudget(most_pixels)
        self.locations = np.full((len(requested), 2), NOT_IN_ARENA, np.int64)  # block and offset
        self.masks, self.backgrounds = PackedImages(len(requested)), PackedImages(len(requested))
        self.flat: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None
        self.queued: QueuedWork | None = None
        self._sub_batch: ArenaJob | None = None

    @property
    def is_late(self) -> np.ndarray:
        """True for each slot that is beyond the budget."""
        return self.locations[:, 0] == LATE

    def postpone(self, slots: Sequence[int]) -> None:
        """Leave these slots for later."""
        self.locations[np.array(slots, np.int64), 0] = LATE

    def keep(self, slots: np.ndarray) -> None:
        """Keep these slots of a loaded job and drop the others."""
        self.requested, self.ids = self.requested[slots], self.ids[slots]
        self.rows, self.shapes = self.rows[slots], self.shapes[slots]
        self.locations = self.locations[slots]
        self.masks.keep(slots)
        self.backgrounds.keep(slots)

    def have_sub_batch(self, sub_batch: ArenaJob | None) -> None:
        """Cancel a sub-batch of this job when this one is cancelled."""
        self._sub_batch = sub_batch
        if self.cancelled and sub_batch is not None:
            sub_batch.cancel()

    def cancel(self) -> None:
        super().cancel()
        if (sub_batch := self._sub_batch) is not None:
            sub_batch.cancel()

    def forget_images(self) -> None:
        """Release the memory of the images, once all work on it is queued and keeps it alive."""
        del self.arena, self.masks, self.backgrounds

    def cached(self, id: int) -> tuple[int, int, Allocation] | None:
        if self.cache is None or (place := self.cache.place(id)) is None:
            return None
        address, height, width = place
        return height, width, Allocation(IN_CACHE, address, _ON_DEVICE)


def plan_cached(worker: Worker, job: ArenaJob, slots: range) -> tuple[list[int], Sequence[int]]:
    """Plan the samples of a chunk that the device cache holds, in one call.

    Returns their slots, and the slots of the samples to load.
    """
    if job.cache is None:
        return [], slots
    at = np.arange(slots.start, slots.stop)
    ids = job.requested[at]
    addresses, shapes = job.cache.find(ids, worker.ledger)
    there = shapes[:, 0] > 0
    cached = at[there]
    if len(cached):
        worker.plan(job, cached, ids[there], shapes[there])
        worker.counters.hits += len(cached)
        job.locations[cached, 0], job.locations[cached, 1] = IN_CACHE, addresses[there]
    return cached.tolist(), at[~there].tolist()


def decode_into(
    arena: Arena, data: bytes | np.ndarray, max_pixels: int = MAX_PIXELS
) -> LoadedImage:
    """Decode an image into an arena, or copy pixels to it; raises BadImage like `decode`."""
    allocation: Allocation | None = None

    def allocate(size: int) -> np.ndarray | None:  # allocations here are not undone
        nonlocal allocation
        if size <= BLOCK_BYTES:
            allocation = arena.allocate(size)
        return None if allocation is None else allocation.memory

    image = data if isinstance(data, np.ndarray) else decode(data, allocate, max_pixels)
    if allocation is None or not np.may_share_memory(image, allocation.memory):
        allocation = arena.allocate(image.nbytes)
        allocation.memory[:] = image.reshape(-1)
    return LoadedImage(image.shape[0], image.shape[1], allocation)


def pack_paste_inputs(worker: Worker, job: ArenaJob, slots: Sequence[int], stage: str) -> None:
    """Copy the masks of planned samples and decode their backgrounds into the batch's arena."""
    if not worker.samples.pastes:
        return

    def load(id: int, data: bytes | np.ndarray) -> LoadedImage:
        return decode_into(job.arena, data, worker.max_pixels)

    pastes = worker.samples.paste_inputs(job, slots, load, stage, job.background_budget)
    job.postpone(slots[len(pastes) :])
    for slot, (mask, background) in zip(slots, pastes, strict=False):
        allocation = None
        if mask.size:
            allocation = job.arena.allocate(mask.size)
            allocation.memory[:] = mask.reshape(-1)
        job.masks.put(slot, allocation, *mask.shape)
        job.backgrounds.put(slot, background.data if background.height else None, *background[:2])
