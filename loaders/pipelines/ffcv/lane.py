"""Compiled code of one FFCV thread (lane): loads, plans and renders whole samples of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.order import permutation
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines import stages
from patchmill.loaders.pipelines.ffcv import jpeg, paste
from patchmill.loaders.pipelines.ffcv.calls import by_address, compiled_once, nanoseconds
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.beton.layout import JPG

DECODE, PLAN, RENDER, MASK = range(4)
STAGES = (*stages.FFCV["workers"], "mask")  # a lane counts items and nanoseconds of each
OUTCOMES = 2 * len(STAGES)  # offset of its counts of mask look-ups by outcome
COUNTED = OUTCOMES + paste.FAILED + 1
UNREADABLE, FAILED = 0, -1  # returned by a fallback decoder instead of an address

# (id, address and size of the bytes, address of int32 height and width, 1 for a background and 0
# for a sample) -> address of the pixels
FALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64
)


@dataclass(frozen=True, eq=False)
class LaneConstants:
    """Values that are compiled into the code."""

    seed: int
    laws: np.ndarray
    slots: np.ndarray  # layout table of a batch of one
    number: np.dtype  # of the pixels
    half: bool
    channels_last: bool
    max_pixels: int  # of an image
    largest_view: int  # in pixels
    image_bytes: int  # of a lane's decode buffer
    scratch_bytes: int  # likely to suffice for the renderer
    read: Callable[..., np.ndarray]  # FFCV's: the bytes stored at an address
    fallback: Any  # a FALLBACK: Python's decoder, for images that compiled code cannot decode
    pasting: paste.PasteConstants | None  # None: the recipe has no copy-paste


def compile_lane(constants: LaneConstants) -> Any:
    """Compile the loop that takes slots of the batch from `counter` until none are left."""
    obtain, laws, slots = _compile_obtain(constants), constants.laws, constants.slots
    seed = np.uint64(constants.seed)
    image_bytes, scratch_bytes = constants.image_bytes, constants.scratch_bytes
    draw_into, make_views = _draw_into(constants), _compile_make_views(constants)
    take_number, pixels_at = jpeg.take_number, jpeg.pixels
    paste_inputs = paste.compile_paste_inputs(constants.pasting, obtain)
    encoded_bytes, other_bytes = 0, 0
    if constants.pasting is not None:
        encoded_bytes, other_bytes = constants.pasting.encoded_bytes, image_bytes

    @numba.njit(nogil=True, error_model="numpy")
    def lane(counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows, counts):  # type: ignore
        my_laws, my_slots = laws.copy(), slots.copy()  # constants have another type
        for v in range(len(my_slots)):
            my_slots[v].offset *= len(indices)
        buffer, header = np.empty(image_bytes, np.uint8), np.empty(4, np.int32)
        pool, clock = np.empty(scratch_bytes, np.uint8), np.empty(2, np.int64)
        encoded, masks = np.empty(encoded_bytes, np.uint8), np.empty(0, np.uint8)
        other, inputs = np.empty(other_bytes, np.uint8), np.zeros(paste.INPUT_NUMBERS, np.int64)
        out = pixels.reshape(pixels.size)
        began = nanoseconds(clock)
        slot = take_number(counter)
        while slot < len(indices):
            id, address = obtain(indices[slot], metadata, storage, epoch, buffer, header, 0)
            ids[slot, 0] = id
            began = count_item(counts, DECODE, began, nanoseconds(clock))
            if id >= 0:
                height, width = np.int64(header[0]), np.int64(header[1])
                shapes[slot, 0], shapes[slot, 1] = height, width
                row = rows[slot].view(ROW)
                draw_into(my_laws, seed, epoch, id, height, width, row)
                began = count_item(counts, PLAN, began, nanoseconds(clock))
                outcome, masks = paste_inputs(
                    id, epoch, row, metadata, storage, encoded, masks, other, header, inputs, clock
                )
                if outcome != paste.NOTHING:
                    began = count_item(counts, MASK, began, nanoseconds(clock))
                    counts[OUTCOMES + outcome] += 1
                    counts[2 * DECODE] += np.int64(inputs[paste.BACKGROUND_HEIGHT] != 0)
                    counts[2 * DECODE + 1] += inputs[paste.DECODE_NS]
                    counts[2 * MASK + 1] -= inputs[paste.DECODE_NS]
                if outcome == paste.FAILED:
                    ids[slot, 0] = -1
                image = pixels_at(address, height, width)
                pool = make_views(image, inputs, row, my_slots, slot, out, pool)
                began = count_item(counts, RENDER, began, nanoseconds(clock))
            slot = take_number(counter)

    return compiled_once(lane)


@numba.njit(nogil=True)
def count_item(counts, stage, began, now):  # type: ignore[no-untyped-def]
    """Count an item of a stage that began at `began`, and return the current time."""
    counts[2 * stage] += 1
    counts[2 * stage + 1] += now - began
    return now


def _compile_make_views(constants: LaneConstants) -> Any:
    """Compile the rendering of an image; it returns its scratch memory, which may have grown."""
    half, channels_last, largest = constants.half, constants.channels_last, constants.largest_view
    render_image, needed_bytes = _render_image(constants), render.scratch_bytes
    if constants.pasting is None:

        @numba.njit(nogil=True, error_model="numpy")
        def make_views(image, inputs, row, slots, slot, out, pool):  # type: ignore[no-untyped-def]
            need = needed_bytes(image.shape[0], image.shape[1], largest) + 64
            if pool.size < need:
                pool = np.empty(need, np.uint8)
            aligned = pool[64 - np.int64(pool.ctypes.data) % 64 :]
            render_image(image, row, slots, slot, half, channels_last, out, aligned)
            return pool

        return make_views

    render_pasted, pasted_bytes = _render_pasted(constants), render.pasted_scratch_bytes
    pixels_at, plane_at = jpeg.pixels, jpeg.plane

    @numba.njit(nogil=True, error_model="numpy")
    def make_pasted_views(image, inputs, row, slots, slot, out, pool):  # type: ignore[no-untyped-def]
        height, width, _ = image.shape
        need = pasted_bytes(
            height, width, inputs[1], inputs[2], inputs[4], inputs[5], largest
        ) + 64  # fmt: skip
        if pool.size < need:
            pool = np.empty(need, np.uint8)
        aligned = pool[64 - np.int64(pool.ctypes.data) % 64 :]
        mask = plane_at(inputs[0], inputs[1], inputs[2])
        background = pixels_at(inputs[3], inputs[4], inputs[5])
        render_pasted(image, mask, background, row, slots, slot, half, channels_last, out, aligned)
        return pool

    return make_pasted_views


def _draw_into(constants: LaneConstants) -> Any:
    row = np.empty(len(constants.laws), ROW)
    return by_address(draw.draw_into, constants.laws, np.uint64(0), 0, 0, 1, 1, row)


def _render_image(constants: LaneConstants) -> Any:
    row, image = np.empty(len(constants.laws), ROW), np.empty((1, 1, 3), np.uint8)
    out, pool = np.empty(0, constants.number), np.empty(0, np.uint8)
    return by_address(
        render.render_image, image, row, constants.slots, 0, constants.half,
        constants.channels_last, out, pool,
    )  # fmt: skip


def _render_pasted(constants: LaneConstants) -> Any:
    row, image = np.empty(len(constants.laws), ROW), np.empty((1, 1, 3), np.uint8)
    out, pool = np.empty(0, constants.number), np.empty(0, np.uint8)
    return by_address(
        render.render_pasted, image, render.NO_MASK, image, row, constants.slots, 0, constants.half,
        constants.channels_last, out, pool,
    )  # fmt: skip


def _compile_obtain(constants: LaneConstants) -> Any:
    """Compile the search for a readable sample: its id and the address of its pixels."""
    read, fallback, seed = constants.read, constants.fallback, np.uint64(constants.seed)
    decode, substitute = jpeg.decode, permutation._substitute
    most_bytes = 3 * constants.max_pixels

    @numba.njit(nogil=True, error_model="numpy")
    def obtain(index, metadata, storage, epoch, buffer, header, role):  # type: ignore
        requested = np.int64(index)
        id = requested
        for attempt in range(MOST_SUBSTITUTES):
            field = metadata[id]
            data = read(field["data_ptr"], storage)
            height, width = np.int64(field["height"]), np.int64(field["width"])
            header[0], header[1] = height, width
            if field["mode"] == JPG:
                if decode(data, buffer, header):
                    return id, np.uint64(buffer.ctypes.data)
            elif data.size == 3 * height * width and 0 < 3 * height * width <= most_bytes:
                return id, np.uint64(data.ctypes.data)
            address = fallback(id, data.ctypes.data, data.size, header.ctypes.data, role)
            if address == FAILED:
                break
            if address != UNREADABLE:
                return id, np.uint64(address)
            id = substitute(seed, np.uint64(epoch), requested, attempt, len(metadata))
        return np.int64(-1), np.uint64(0)

    return compiled_once(obtain)
