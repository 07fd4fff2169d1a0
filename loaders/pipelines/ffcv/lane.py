"""What one of FFCV's threads does for a batch, compiled: obtain, plan and render whole samples."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.order import permutation
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines.ffcv import jpeg
from patchmill.loaders.pipelines.ffcv.call_by_address import by_address
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.beton.layout import JPG

_BYTES = np.empty(0, np.uint8)
STAGES = ("decode", "plan", "render")  # of which a lane counts the nanoseconds
BAD, FAILED = 0, -1  # what a rescue returns in place of an address

# (id, address and size of its bytes, address of int32 height and width) -> address of its pixels
RESCUE = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
)


@dataclass(frozen=True, eq=False)
class Work:
    """What the compiled code has built in."""

    seed: int
    laws: np.ndarray
    slots: np.ndarray  # for a batch of one
    number: np.dtype  # of the pixels
    half: bool
    channels_last: bool
    largest: int  # view, in pixels
    room: int  # bytes of a lane's image
    scratch: int  # bytes that the renderer is likely to need
    read: Callable[..., np.ndarray]  # FFCV's: the bytes that were stored at an address
    rescue: Any  # a RESCUE, for what cannot be decoded here


def compiled(work: Work) -> Any:
    """Samples of the batch, as long as `counter` gives any that no other lane has taken."""
    obtain, laws, slots, seed = _obtain(work), work.laws, work.slots, np.uint64(work.seed)
    half, channels_last, largest = work.half, work.channels_last, work.largest
    room, scratch = work.room, work.scratch
    draw_into, render_image, pool_bytes = _draw_into(work), _render_image(work), render.pool_bytes
    take_number, pixels_at, nanoseconds = jpeg.take_number, jpeg.pixels, _nanoseconds

    @numba.njit(nogil=True, error_model="numpy")
    def lane(counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows, spent):  # type: ignore
        my_laws, my_slots = laws.copy(), slots.copy()  # as constants they are of another type
        for v in range(len(my_slots)):
            my_slots[v].first *= len(indices)
        buffer, facts = np.empty(room, np.uint8), np.empty(4, np.int32)
        pool, clock = np.empty(scratch, np.uint8), np.empty(2, np.int64)
        out = pixels.reshape(pixels.size)
        began = nanoseconds(clock)
        slot = take_number(counter)
        while slot < len(indices):
            id, address = obtain(indices[slot], metadata, storage, epoch, buffer, facts)
            ids[slot, 0] = id
            obtained = nanoseconds(clock)
            spent[0] += 1
            spent[1] += obtained - began
            began = obtained
            if id >= 0:
                height, width = np.int64(facts[0]), np.int64(facts[1])
                shapes[slot, 0], shapes[slot, 1] = height, width
                row = rows[slot].view(ROW)
                draw_into(my_laws, seed, epoch, id, height, width, row)
                planned = nanoseconds(clock)
                need = pool_bytes(height, width, largest) + 64
                if pool.size < need:
                    pool = np.empty(need, np.uint8)
                aligned = pool[64 - np.int64(pool.ctypes.data) % 64 :]
                image = pixels_at(address, height, width)
                render_image(image, row, my_slots, slot, half, channels_last, out, aligned)
                began = nanoseconds(clock)
                spent[2] += planned - obtained
                spent[3] += began - planned
            slot = take_number(counter)

    return lane


_clock = ctypes.CDLL(None).clock_gettime
_clock.argtypes = [ctypes.c_int, ctypes.c_void_p]
_MONOTONIC = time.CLOCK_MONOTONIC


@numba.njit(nogil=True)
def _nanoseconds(clock):  # type: ignore[no-untyped-def]
    _clock(_MONOTONIC, clock.ctypes.data)
    return clock[0] * 1_000_000_000 + clock[1]


def _draw_into(work: Work) -> Any:
    row = np.empty(len(work.laws), ROW)
    return by_address(draw.draw_into, work.laws, np.uint64(0), 0, 0, 1, 1, row)


def _render_image(work: Work) -> Any:
    row, image, pool = np.empty(len(work.laws), ROW), np.empty((1, 1, 3), np.uint8), _BYTES
    out = np.empty(0, work.number)
    return by_address(
        render.render_image, image, row, work.slots, 0, work.half, work.channels_last, out, pool
    )


def _obtain(work: Work) -> Any:
    """The sample that is wanted or the one that stands in for it, and where its pixels lie."""
    read, rescue, seed = work.read, work.rescue, np.uint64(work.seed)
    decode, substitute = jpeg.decode, permutation._substitute

    @numba.njit(nogil=True, error_model="numpy")
    def obtain(index, metadata, storage, epoch, buffer, facts):  # type: ignore
        wanted = np.int64(index)
        id = wanted
        for attempt in range(MOST_SUBSTITUTES):
            field = metadata[id]
            data = read(field["data_ptr"], storage)
            height, width = np.int64(field["height"]), np.int64(field["width"])
            facts[0], facts[1] = height, width
            if field["mode"] == JPG:
                if decode(data, buffer, facts):
                    return id, np.uint64(buffer.ctypes.data)
            elif data.size == 3 * height * width and 3 * height * width > 0:
                return id, np.uint64(data.ctypes.data)
            address = rescue(id, data.ctypes.data, data.size, facts.ctypes.data)
            if address == FAILED:
                break
            if address != BAD:
                return id, np.uint64(address)
            id = substitute(seed, np.uint64(epoch), wanted, attempt, len(metadata))
        return np.int64(-1), np.uint64(0)

    return obtain
