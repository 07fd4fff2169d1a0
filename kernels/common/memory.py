"""CPU memory: huge-page allocation, flat storage, arrays without refcounts, streaming stores."""

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

LARGE = 4 << 20  # bytes from which huge pages and streaming stores pay off
STORE_BYTES = 16  # of one streaming store


def allocate(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Uninitialised tensor; large ones ask Linux for huge pages (madvise).

    The first write to 150 MB is mostly page faults; with huge pages it is about as fast as the
    second.
    """
    tensor = torch.empty(tuple(shape), dtype=dtype)
    if tensor.nbytes >= LARGE and (madvise := _madvise()):
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_HUGEPAGE)
    return tensor


@functools.cache
def _madvise() -> Callable[..., int] | None:
    """libc's madvise, or None; its failures are ignored, since they only cost time."""
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return getattr(ctypes.CDLL(None), "madvise", None)


def can_stream(tensor: torch.Tensor, row: int) -> bool:
    """True if rows of `row` elements are aligned for `stream_row` and the tensor is LARGE."""
    aligned = tensor.data_ptr() % STORE_BYTES == row * tensor.itemsize % STORE_BYTES == 0
    return aligned and tensor.nbytes >= LARGE


def flat_storage(tensor: torch.Tensor) -> torch.Tensor:
    """1-D view from a non-empty tensor's first element to its last, for any strides."""
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((last + 1,), (1,))


@intrinsic
def borrow(typing: Any, array: Any) -> Any:
    """The same array without reference counting in compiled code: the caller keeps it alive.

    Numba frees an array allocated in compiled code after its last use, so borrow such an array
    inside the loop that uses it.

    Every slice counts as a reference, and threads that slice one array contend for its atomic
    counter: hundreds of nanoseconds per row, enough to make two threads slower than one.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (kind,), (value,) = signature.args, arguments
        borrowed = context.make_array(kind)(context, builder, value)
        for owner in ("meminfo", "parent"):
            setattr(borrowed, owner, getattr(borrowed, owner).type(None))
        return borrowed._getvalue()

    return array(array), emit


@intrinsic
def stream_row(typing: Any, source: Any, target: Any) -> Any:
    """Copy a row with non-temporal stores, which bypass the cache: takes about half the time.

    The target's address and length must be multiples of STORE_BYTES bytes. Call `store_fence`
    after the last row.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        elements = STORE_BYTES * 8 // signature.args[0].dtype.bitwidth
        rows = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        kind = ir.VectorType(context.get_data_type(signature.args[0].dtype), elements)
        length = builder.extract_value(rows[1].shape, 0)
        step = ir.Constant(length.type, elements)
        zero = ir.Constant(length.type, 0)
        with cgutils.for_range_slice(builder, zero, length, step, inc=True) as (index, _):
            source_address, target_address = (
                builder.bitcast(builder.gep(row.data, [index]), kind.as_pointer()) for row in rows
            )
            value = builder.load(source_address, align=signature.args[0].dtype.bitwidth // 8)
            stored = builder.store(value, target_address, align=STORE_BYTES)
            hint = builder.module.add_metadata([ir.IntType(32)(1)])
            stored.set_metadata("nontemporal", hint)
        return context.get_dummy_value()

    return types.none(source, target), emit


@intrinsic
def store_fence(typing: Any) -> Any:
    """Make streaming stores visible to other threads."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic
def load_fence(typing: Any) -> Any:
    """Make visible what another thread wrote before the value that was read last."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acquire")
        return context.get_dummy_value()

    return types.none(), emit
