"""FFCV operation that decodes a batch of images of any sizes to given addresses, and plans them.

The addresses are known before anything is decoded, from the file's table of heights and widths. So
every image is decoded, or copied if it is stored raw, directly into the memory of the upload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from ffcv.pipeline.compiler import Compiler

from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.pipelines.ffcv import jpeg
from patchmill.loaders.pipelines.ffcv.calls import by_address, compiled_once, nanoseconds
from patchmill.loaders.pipelines.ffcv.compiled import EpochOperation, Memory
from patchmill.loaders.pipelines.ffcv.lane import count_item
from patchmill.loaders.pipelines.gpu.arena import BLOCK_BYTES, NOT_IN_ARENA, Arena, ArenaJob
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.beton.layout import JPG

DECODE, PLAN = 0, 1  # stages of which a lane counts items and nanoseconds
MAX_IMAGE_BYTES = 64 << 20  # larger images are decoded in Python
_ALIGNMENT = 16

# The result of `begin`, the samples that were decoded, their rows, and lane counts.
RaggedArrays = tuple[int, np.ndarray, np.ndarray, np.ndarray]


class RaggedDecoder(EpochOperation):
    """Decodes the images of a batch to given addresses; `memory` lists its inputs and outputs."""

    def __init__(self, laws: np.ndarray, seed: int) -> None:
        super().__init__()
        self.laws, self.seed = laws, seed

    def memory(self, epoch: int) -> Memory:
        """Shape and dtype of a sample's arrays.

        Its place (address, height and width; 0: do not decode), 1 if it was decoded there, its
        rows, and no bytes, whose shape carries the epoch.
        """
        return [
            ((3,), np.dtype("i8")),
            ((1,), np.dtype("u1")),
            ((len(self.laws) * ROW.itemsize,), np.dtype("u1")),
            ((0, epoch), np.dtype("u1")),
        ]

    def compile_begin(self) -> Any:
        """Compile the function that is called with ids, epoch and places before each batch."""
        return _nothing

    def generate_code(self) -> Callable[..., RaggedArrays]:
        begin, lane = self.compile_begin(), _compile_lane(self.laws, self.seed, self.memory_read)
        count, each = Compiler.num_threads, Compiler.get_iterator()

        def make_batch(indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            places, decoded, rows, empty = memory
            counter, epoch = np.zeros(1, np.int64), empty.shape[2]
            counts = np.zeros((count, 4), np.int64)
            batch = begin(indices, epoch, places)
            for i in each(count):
                lane(counter, indices, metadata, storage, epoch, places, decoded, rows, counts[i])
            return batch, decoded, rows, counts

        make_batch.is_parallel = True  # type: ignore[attr-defined]
        return make_batch


def lay_out(arena: Arena, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Allocate memory for images of these sizes: blocks and offsets [N, 2], and addresses [N].

    Images of size 0 get none. As many as fit are allocated together.
    """
    locations = np.full((len(sizes), 2), NOT_IN_ARENA, np.int64)
    addresses = np.zeros(len(sizes), np.int64)
    aligned = -(-sizes // _ALIGNMENT) * _ALIGNMENT
    small = np.flatnonzero((sizes > 0) & (aligned <= BLOCK_BYTES))
    ends, runs, first = np.cumsum(aligned[small]), list[np.ndarray](), 0
    while first < len(small):
        start = ends[first] - aligned[small[first]]
        stop = int(np.searchsorted(ends, start + BLOCK_BYTES, "right"))
        runs.append(small[first:stop])
        first = stop
    runs += list(np.flatnonzero(aligned > BLOCK_BYTES)[:, None])
    for run in runs:
        offsets = np.cumsum(aligned[run]) - aligned[run]
        memory = arena.allocate(int(aligned[run].sum()))
        locations[run, 0], locations[run, 1] = memory.block, memory.offset + offsets
        addresses[run] = memory.memory.ctypes.data + offsets
    return locations, addresses


def within_budget(
    job: ArenaJob, slots: Sequence[int], records: np.ndarray, max_pixels: int
) -> Sequence[int]:
    """The first of these slots within the budget, by the file's records; the rest is postponed."""
    if job.budget is None or not len(slots):
        return slots
    sides = records[job.requested[np.array(slots, np.int64)]]
    pixels = sides["height"].astype(np.int64) * sides["width"]
    taken = job.budget.take_first(np.where(pixels > max_pixels, 0, pixels))
    job.postpone(slots[taken:])
    return slots[:taken]


class RaggedBatch:
    """The samples of a job for compiled code to decode and plan, and their places."""

    def __init__(
        self, job: ArenaJob, slots: Sequence[int], records: np.ndarray, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Lay out the images of these slots, with the sizes in the file's records."""
        self._job, self._slots = job, np.array(slots, np.int64)
        self.ids = job.requested[self._slots]
        sides = [records[side][self.ids].astype(np.int64) for side in ("height", "width")]
        self._shapes = np.stack(sides, 1)
        most = min(MAX_IMAGE_BYTES // 3, max_pixels)
        self._shapes[self._shapes.prod(1) > most] = 0
        self._locations, addresses = lay_out(job.arena, 3 * self._shapes.prod(1))
        self.places = np.concatenate([addresses[:, None], self._shapes], 1)

    def finish(self, decoded: np.ndarray, rows: np.ndarray) -> tuple[list[int], list[int]]:
        """Record the results of compiled code in the job; return slots done and slots left.

        The arrays may be longer than this batch.
        """
        decoded, rows = decoded[: len(self.ids)], rows[: len(self.ids)]
        done = decoded[:, 0].astype(bool)
        made = self._slots[done]
        self._job.locations[made] = self._locations[done]
        self._job.shapes[made], self._job.rows[made] = self._shapes[done], rows.view(ROW)[done]
        return made.tolist(), self._slots[~done].tolist()


def _compile_lane(laws: np.ndarray, seed: int, read: Any) -> Any:
    """Compile the loop that takes slots of the batch from `counter` until none are left."""
    key, decode, copy_pixels = np.uint64(seed), jpeg.decode, by_address(_copy, 0, 0, 0)
    take_number, bytes_at = jpeg.take_number, jpeg.bytes_at
    row = np.empty(len(laws), ROW)
    draw_into = by_address(draw.draw_into, laws, np.uint64(0), 0, 0, 1, 1, row)

    @numba.njit(nogil=True, error_model="numpy")
    def load(field, storage, address, height, width, header):  # type: ignore[no-untyped-def]
        """Decode or copy an image to its place; False if it differs from the table."""
        data, size = read(field["data_ptr"], storage), 3 * height * width
        if size == 0:
            return False
        if field["mode"] == JPG:
            fits = decode(data, bytes_at(address, size), header)
            return fits and header[0] == height and header[1] == width
        if data.size == size:
            copy_pixels(data.ctypes.data, address, size)
        return data.size == size

    @numba.njit(nogil=True, error_model="numpy")
    def lane(counter, indices, metadata, storage, epoch, places, decoded, rows, counts):  # type: ignore[no-untyped-def]
        my_laws, header = laws.copy(), np.empty(4, np.int32)
        clock = np.empty(2, np.int64)
        began = nanoseconds(clock)
        slot = take_number(counter)
        while slot < len(indices):
            id, place = np.int64(indices[slot]), places[slot]
            found = load(metadata[id], storage, place[0], place[1], place[2], header)
            decoded[slot, 0] = found
            if found:
                began = count_item(counts, DECODE, began, nanoseconds(clock))
                drawn = rows[slot].view(ROW)
                draw_into(my_laws, key, epoch, id, place[1], place[2], drawn)
                began = count_item(counts, PLAN, began, nanoseconds(clock))
            slot = take_number(counter)

    return compiled_once(lane)


@numba.njit(nogil=True, error_model="numpy")
def _copy(source: int, target: int, size: int) -> None:
    jpeg.bytes_at(target, size)[:] = jpeg.bytes_at(source, size)


@numba.njit(nogil=True)
def _nothing(ids: np.ndarray, epoch: int, places: np.ndarray) -> int:
    return 0
