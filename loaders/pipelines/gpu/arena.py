"""The decoded images of a batch, packed into few blocks of memory, so that they travel as one."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch

from patchmill.loaders.decode.decoder import decode, needed
from patchmill.loaders.pipelines.gpu.side_stream import Queued
from patchmill.loaders.pipelines.job import Countdown, Job
from patchmill.loaders.pipelines.memory import Blocks
from patchmill.loaders.pipelines.worker import Taken, Worker

BLOCK = 32 << 20  # bytes: some fifty photos
NOWHERE = -1
_ALIGNMENT = 16


class Place(NamedTuple):
    block: int
    offset: int  # bytes
    memory: np.ndarray


class Arena:
    """One batch's share of `blocks`, which are of BLOCK bytes; it comes back with the arena."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._lock = threading.Lock()
        self.memory: list[torch.Tensor] = []
        self.used: list[int] = []
        self._current = -1

    def room(self, size: int) -> Place:
        """Memory for an image of so many bytes."""
        with self._lock:
            if size > BLOCK:
                return self._open(torch.from_numpy(self._blocks.extra(size)), size)
            if self._current < 0 or self.used[self._current] + size > BLOCK:
                place = self._open(self._blocks.take(), size)
                self._current = place.block
                return place
            return self._place(self._current, size)

    def _open(self, memory: torch.Tensor, size: int) -> Place:
        self.memory.append(memory)
        self.used.append(0)
        return self._place(len(self.memory) - 1, size)

    def _place(self, block: int, size: int) -> Place:
        offset = self.used[block]
        self.used[block] = offset + -(-size // _ALIGNMENT) * _ALIGNMENT
        return Place(block, offset, self.memory[block].numpy()[offset : offset + size])

    def image(self, place: tuple[int, int], height: int, width: int) -> np.ndarray:
        """The image that lies at (block, offset)."""
        block, offset = place
        memory = self.memory[block].numpy()[offset : offset + height * width * 3]
        return memory.reshape(height, width, 3)


class Packed:
    """Where in an arena one image of each sample lies, for those that have one."""

    def __init__(self, count: int) -> None:
        self.places = np.full((count, 2), NOWHERE, np.int64)  # block and offset
        self.shapes = np.zeros((count, 2), np.int32)  # height and width; 0 where there is none
        self._memory: list[np.ndarray | None] = [None] * count

    def put(self, slot: int, place: Place | None, height: int = 0, width: int = 0) -> None:
        self.places[slot] = (NOWHERE, 0) if place is None else place[:2]
        self.shapes[slot] = height, width
        self._memory[slot] = None if place is None else place.memory

    def array(self, slot: int, *channels: int) -> np.ndarray:
        """The image of that slot; empty where there is none."""
        memory = self._memory[slot]
        found = np.empty(0, np.uint8) if memory is None else memory
        return found.reshape(*self.shapes[slot], *channels)


class PackedJob(Job):
    """A batch whose images lie in its arena, or wherever a decoder of batches has put them."""

    def __init__(self, epoch: int, wanted: np.ndarray, views: int, arena: Arena) -> None:
        super().__init__(epoch, wanted, views, Countdown(len(wanted)))
        self.arena = arena
        self.places = np.full((len(wanted), 2), NOWHERE, np.int64)  # block and offset
        self.masks, self.companions = Packed(len(wanted)), Packed(len(wanted))
        self.flat: torch.Tensor | None = None
        self.labels: torch.Tensor | None = None
        self.queued: Queued | None = None


def decode_into(arena: Arena, data: bytes) -> tuple[int, int, Place]:
    """(height, width, place) of the image; raises BadImage like `decode`."""
    size = needed(data)  # as the header says, which may lie: what is taken does not come back
    place = arena.room(size) if 0 < size <= BLOCK else None
    image = decode(data, None if place is None else place.memory)
    if place is None or not np.may_share_memory(image, place.memory):
        place = arena.room(image.nbytes)
        place.memory[:] = image.reshape(-1)
    return image.shape[0], image.shape[1], place


def pack_beside(worker: Worker, job: PackedJob, slot: int, stage: str) -> None:
    """Bring what an obtained sample is pasted with into the batch's arena."""

    def take(id: int, data: bytes) -> Taken:
        return Taken(*decode_into(job.arena, data))

    mask, companion = worker.beside(job, slot, take, stage)
    room = None
    if mask.size:
        room = job.arena.room(mask.size)
        room.memory[:] = mask.reshape(-1)
    job.masks.put(slot, room, *mask.shape)
    job.companions.put(slot, companion.image if companion.height else None, *companion[:2])
