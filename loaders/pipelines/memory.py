"""Pools of batch memory: blocks of equal size, lent as tensors and returned automatically.

Allocating half a gigabyte costs more than rendering into it: the first touch of every page is a
page fault, about a tenth of a second for a large batch. So a block is reused as soon as the last
tensor that refers to it is gone, however long the user keeps one.
"""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError

_ALIGNMENT = 64  # bytes, for streaming stores
SMALLER = "use fewer workers, a smaller batch_size, prefetch, cache or recipe"  # as a remedy


class BlockPool:
    """Host memory, optionally pinned, in blocks of `elements` numbers."""

    def __init__(self, elements: int, dtype: torch.dtype, pinned: bool = False) -> None:
        self._elements, self._dtype, self._pinned = elements, dtype, pinned
        self._free: deque[np.ndarray] = deque()

    def acquire(self) -> torch.Tensor:
        """Lend one block as a flat, uninitialised tensor; it returns when no tensor uses it."""
        try:
            block = self._free.pop()
        except IndexError:
            block = self.allocate(self._elements * self._dtype.itemsize)
        loan = block[:]  # a new array object that dies with the last tensor that uses the memory
        weakref.finalize(loan, self._free.append, block).atexit = False
        return torch.from_numpy(loan).view(self._dtype)

    def clear(self) -> None:
        """Free the blocks that are not lent."""
        self._free.clear()

    def allocate(self, size: int) -> np.ndarray:
        """Allocate `size` bytes of the same kind of memory outside the pool."""
        try:
            if self._pinned:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError, RuntimeError):
            raise out_of_memory(size) from None
        skip = -memory.ctypes.data % _ALIGNMENT
        return memory[skip : skip + size]


_Returned = tuple[torch.Tensor, list[torch.cuda.Event]]  # a block, and events after its readers


class DeviceBlockPool:
    """GPU memory in blocks of `elements` numbers; queued work may still read a returned block.

    When the last tensor of a batch dies, two streams may have such work: the current one, and the
    one that the batch was handed to. An event is recorded on both, and the stream that uses the
    block next waits for these events on the GPU. So there are never more blocks than live batches,
    however far the program runs ahead of the GPU.
    """

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self._elements, self._dtype, self._device = elements, dtype, device
        self._free: deque[_Returned] = deque()
        self._readers: dict[int, torch.cuda.Stream] = {}  # by address of the block

    def acquire(self) -> torch.Tensor:
        """Lend one block as a flat tensor for the current stream; it returns automatically."""
        returned = self._pop()
        if returned is None:
            block = self._allocate(self._elements * self._dtype.itemsize)
        else:
            block, last_reads = returned
            for event in last_reads:
                event.wait(torch.cuda.current_stream(self._device))
        loan = _Loan(block)
        weakref.finalize(loan, _give_back, self._free, self._readers, block).atexit = False
        return torch.as_tensor(loan, device=self._device).view(self._dtype)

    def record_reader(self, flat: torch.Tensor, stream: torch.cuda.Stream) -> None:
        """Record that the batch is handed over for use on `stream`."""
        self._readers[flat.data_ptr()] = stream

    def clear(self) -> None:
        """Free the blocks that are not lent."""
        self._free.clear()

    def _pop(self) -> _Returned | None:
        """The oldest free block that is no longer read, or else the oldest; None if there is none.

        Work queued on the newest ends last, so its next user would wait longest.
        """
        read: deque[_Returned] = deque()
        with suppress(IndexError):  # all are still read, or another thread has just freed the rest
            for _ in range(len(self._free)):
                returned = self._free.popleft()
                if all(event.query() for event in returned[1]):
                    self._free.extendleft(reversed(read))
                    return returned
                read.append(returned)
        oldest = read.popleft() if read else None
        self._free.extendleft(reversed(read))
        return oldest

    def _allocate(self, size: int) -> torch.Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, device=self._device)
        except torch.cuda.OutOfMemoryError:
            raise out_of_memory(size) from None


class _Loan:
    """An array-interface object that tensors made from it keep alive."""

    def __init__(self, block: torch.Tensor) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": tuple(block.shape),
            "typestr": "|u1",
            "data": (block.data_ptr(), False),
            "strides": None,
            "version": 3,
        }


def _give_back(
    free: deque[_Returned],
    readers: dict[int, torch.cuda.Stream],
    block: torch.Tensor,
) -> None:
    with suppress(RuntimeError):  # CUDA has failed, or is shutting down
        current = torch.cuda.current_stream(block.device)
        last_reads = []
        for stream in {current, readers.pop(block.data_ptr(), current)}:
            block.record_stream(stream)  # for torch's allocator, if the block is freed
            last_reads.append(stream.record_event())
        free.append((block, last_reads))


def out_of_memory(size: int) -> MillError:
    return MillError(
        f"there is no memory for another batch of {size / 2**30:.1f} GiB: use a smaller "
        "batch_size, prefetch or recipe"
    )
