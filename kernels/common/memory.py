"""Memory on the CPU: new, all that a tensor reaches, borrowed, and written past the cache."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LARGE = 4 << 20  # bytes; from here on the kernel's pages are worth asking for
WIDE = 16  # bytes that are written past the cache at once


def allocate(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Uninitialised; if large, in huge pages where Linux gives them to those who ask.

    Most of the time to write 150 MB for the first time goes into faults of small pages: with huge
    ones it takes hardly longer than the second time.
    """
    tensor = torch.empty(tuple(shape), dtype=dtype)
    if tensor.nbytes >= LARGE and (advise := _advice()):
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_HUGEPAGE)
    return tensor


@functools.cache
def _advice() -> Callable[..., int] | None:
    """madvise, whose refusal changes nothing but the time."""
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)


def can_stream(tensor: torch.Tensor, row: int) -> bool:
    """Whether rows of so many numbers can be written `past` the cache, which it has no room for."""
    aligned = tensor.data_ptr() % WIDE == row * tensor.itemsize % WIDE == 0
    return aligned and tensor.nbytes >= LARGE


def flat_storage(tensor: torch.Tensor) -> torch.Tensor:
    """All memory that a tensor with elements reaches, from its first one on."""
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((reach + 1,), (1,))


@intrinsic
def borrow(typing: Any, array: Any) -> Any:
    """The same array, whose references compiled code does not count: the caller keeps it alive.

    An array of the compiled code's own is freed after its last use, so borrow it where it is used.

    Each slice of an array is a reference to it, and two threads that count those of one array wait
    for each other: by hundreds of nanoseconds a row, so that they were slower than one.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind,), (value,) = signature.args, arguments
        same = context.make_array(kind)(context, builder, value)
        for owner in ("meminfo", "parent"):
            setattr(same, owner, getattr(same, owner).type(None))
        return same._getvalue()

    return array(array), emit


@intrinsic
def stream_row(typing: Any, source: Any, target: Any) -> Any:
    """Copy a row past the cache: its memory is not read before it is written, in half the time.

    The target and its length must be multiples of `WIDE` bytes. `settled` has to come after it.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = WIDE * 8 // signature.args[0].dtype.bitwidth
        rows = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        kind = ir.VectorType(context.get_data_type(signature.args[0].dtype), numbers)
        length = builder.extract_value(rows[1].shape, 0)
        step = ir.Constant(length.type, numbers)
        zero = ir.Constant(length.type, 0)
        with cgutils.for_range_slice(builder, zero, length, step, inc=True) as (place, _):
            here, there = (
                builder.bitcast(builder.gep(row.data, [place]), kind.as_pointer()) for row in rows
            )
            value = builder.load(here, align=signature.args[0].dtype.bitwidth // 8)
            stored = builder.store(value, there, align=WIDE)
            hint = builder.module.add_metadata([ir.IntType(32)(1)])
            stored.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.none(source, target), emit


@intrinsic
def store_fence(typing: Any) -> Any:
    """What was written `past` the cache is there for other threads too."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), emit
