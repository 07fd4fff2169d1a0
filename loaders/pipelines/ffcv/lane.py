"""Compiled code of one FFCV thread (lane): loads, plans and renders whole samples of a batch."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from patchmill.kernels.common.by_address import emit_call
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import ROW
from patchmill.loaders.order import permutation
from patchmill.loaders.order.permutation import MOST_SUBSTITUTES
from patchmill.loaders.pipelines import stages
from patchmill.loaders.pipelines.ffcv import jpeg
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.beton.layout import JPG

STAGES = stages.FFCV["workers"]  # a lane counts images, and the nanoseconds of each of these
UNREADABLE, FAILED = 0, -1  # returned by a fallback decoder in place of an address

# (id, address and size of the bytes, address of int32 height and width) -> address of the pixels
FALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
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
    largest_view: int  # in pixels
    image_bytes: int  # of a lane's decode buffer
    scratch_bytes: int  # that the renderer is likely to need
    read: Callable[..., np.ndarray]  # FFCV's: the bytes stored at an address
    fallback: Any  # a FALLBACK: Python's decoder, for what compiled code cannot decode


def compile_lane(constants: LaneConstants) -> Any:
    """Compile the loop that takes slots of the batch from `counter` until none are left."""
    obtain, laws, slots = _compile_obtain(constants), constants.laws, constants.slots
    seed, half, channels_last = np.uint64(constants.seed), constants.half, constants.channels_last
    largest_view = constants.largest_view
    image_bytes, scratch_bytes = constants.image_bytes, constants.scratch_bytes
    draw_into, render_image = _draw_into(constants), _render_image(constants)
    needed_bytes, take_number, pixels_at = render.scratch_bytes, jpeg.take_number, jpeg.pixels
    nanoseconds = _nanoseconds

    @numba.njit(nogil=True, error_model="numpy")
    def lane(counter, indices, metadata, storage, epoch, pixels, ids, shapes, rows, times):  # type: ignore
        my_laws, my_slots = laws.copy(), slots.copy()  # as constants they are of another type
        for v in range(len(my_slots)):
            my_slots[v].offset *= len(indices)
        buffer, header = np.empty(image_bytes, np.uint8), np.empty(4, np.int32)
        pool, clock = np.empty(scratch_bytes, np.uint8), np.empty(2, np.int64)
        out = pixels.reshape(pixels.size)
        began = nanoseconds(clock)
        slot = take_number(counter)
        while slot < len(indices):
            id, address = obtain(indices[slot], metadata, storage, epoch, buffer, header)
            ids[slot, 0] = id
            decoded = nanoseconds(clock)
            times[0] += 1
            times[1] += decoded - began
            began = decoded
            if id >= 0:
                height, width = np.int64(header[0]), np.int64(header[1])
                shapes[slot, 0], shapes[slot, 1] = height, width
                row = rows[slot].view(ROW)
                draw_into(my_laws, seed, epoch, id, height, width, row)
                planned = nanoseconds(clock)
                need = needed_bytes(height, width, largest_view) + 64
                if pool.size < need:
                    pool = np.empty(need, np.uint8)
                aligned = pool[64 - np.int64(pool.ctypes.data) % 64 :]
                image = pixels_at(address, height, width)
                render_image(image, row, my_slots, slot, half, channels_last, out, aligned)
                began = nanoseconds(clock)
                times[2] += planned - decoded
                times[3] += began - planned
            slot = take_number(counter)

    return lane


_clock = ctypes.CDLL(None).clock_gettime
_clock.argtypes = [ctypes.c_int, ctypes.c_void_p]
_MONOTONIC = time.CLOCK_MONOTONIC


@numba.njit(nogil=True)
def _nanoseconds(clock):  # type: ignore[no-untyped-def]
    _clock(_MONOTONIC, clock.ctypes.data)
    return clock[0] * 1_000_000_000 + clock[1]


def _draw_into(constants: LaneConstants) -> Any:
    row = np.empty(len(constants.laws), ROW)
    return _call_by_address(draw.draw_into, constants.laws, np.uint64(0), 0, 0, 1, 1, row)


def _render_image(constants: LaneConstants) -> Any:
    row, image = np.empty(len(constants.laws), ROW), np.empty((1, 1, 3), np.uint8)
    out, pool = np.empty(0, constants.number), np.empty(0, np.uint8)
    return _call_by_address(
        render.render_image, image, row, constants.slots, 0, constants.half,
        constants.channels_last, out, pool,
    )  # fmt: skip


def _compile_obtain(constants: LaneConstants) -> Any:
    """Compile the search for a readable sample: its id and the address of its pixels."""
    read, fallback, seed = constants.read, constants.fallback, np.uint64(constants.seed)
    decode, substitute = jpeg.decode, permutation._substitute

    @numba.njit(nogil=True, error_model="numpy")
    def obtain(index, metadata, storage, epoch, buffer, header):  # type: ignore
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
            elif data.size == 3 * height * width and 3 * height * width > 0:
                return id, np.uint64(data.ctypes.data)
            address = fallback(id, data.ctypes.data, data.size, header.ctypes.data)
            if address == FAILED:
                break
            if address != UNREADABLE:
                return id, np.uint64(address)
            id = substitute(seed, np.uint64(epoch), requested, attempt, len(metadata))
        return np.int64(-1), np.uint64(0)

    return obtain


def _call_by_address(function: Any, *example: Any) -> Any:
    """Make a jitted function callable from compiled code by its address, for types of `example`.

    Numba otherwise compiles a callee once more into each caller: every FFCV loader would take a
    quarter of a minute to start.
    """
    arguments = tuple(map(numba.typeof, example))
    function.compile(arguments)  # or load it
    compiled = function.overloads[arguments]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    signature = compiled.signature

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        values = [builder.extract_value(values[0], i) for i in range(len(arguments))]
        pointer = ir.Constant(cgutils.intp_t, address)
        return emit_call(context, builder, pointer, signature.return_type, arguments, values)

    @intrinsic
    def call(typing_context, values):  # type: ignore[no-untyped-def]
        return signature.return_type(numba.types.Tuple(arguments)), generate

    @numba.njit(nogil=True)
    def called(*values):  # type: ignore[no-untyped-def]
        return call(values)

    return called
