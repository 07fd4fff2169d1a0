"""Batch memory that comes back: a fresh allocation of half a gigabyte costs more than its views.

The first touch of every page is a fault, about a tenth of a second for a large batch. So blocks are
kept and handed out again as soon as no tensor of the batch is alive any more, however long the user
keeps one.
"""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from patchmill.loaders.common.errors import MillError

_ALIGNMENT = 64  # what streaming stores want


class Blocks:
    """Equal blocks of memory, lent as flat tensors."""

    def __init__(self, elements: int, dtype: torch.dtype, pinned: bool = False) -> None:
        self._elements, self._dtype, self._pinned = elements, dtype, pinned
        self._free: deque[np.ndarray] = deque()

    def take(self) -> torch.Tensor:
        """A flat tensor of `elements` numbers, values undefined; its memory returns by itself."""
        try:
            block = self._free.pop()
        except IndexError:
            block = self.extra(self._elements * self._dtype.itemsize)
        loan = block[:]  # a new array object: it dies with the last tensor that uses the memory
        weakref.finalize(loan, self._free.append, block).atexit = False
        return torch.from_numpy(loan).view(self._dtype)

    def clear(self) -> None:
        """Give back to the system what is not lent."""
        self._free.clear()

    def extra(self, size: int) -> np.ndarray:
        """As many bytes of the same kind of memory, which are not kept."""
        try:
            if self._pinned:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
            memory = np.empty(size + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError, RuntimeError):
            raise out_of_memory(size) from None
        skip = -memory.ctypes.data % _ALIGNMENT
        return memory[skip : skip + size]


class DeviceBlocks:
    """The same on a GPU, where a block that comes back may still be read by work that is queued.

    When the last tensor of a batch dies, what its thread's stream has in its queue is what may
    still use it, or the stream that the batch was handed to: the next taker's stream waits for
    both, on the GPU. So however far the program runs ahead of the GPU, there are no more blocks
    than batches alive.
    """

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self._elements, self._dtype, self._device = elements, dtype, device
        self._free: deque[tuple[torch.Tensor, list[torch.cuda.Event]]] = deque()
        self._readers: dict[int, torch.cuda.Stream] = {}  # by address of the block

    def take(self) -> torch.Tensor:
        """A flat tensor for the current stream; its memory returns by itself."""
        try:
            block, used = self._free.pop()
        except IndexError:
            size = self._elements * self._dtype.itemsize
            try:
                block = torch.empty(size, dtype=torch.uint8, device=self._device)
            except torch.cuda.OutOfMemoryError:
                raise out_of_memory(size) from None
        else:
            for event in used:
                event.wait(torch.cuda.current_stream(self._device))
        loan = _Loan(block)
        weakref.finalize(loan, _come_back, self._free, self._readers, block).atexit = False
        return torch.as_tensor(loan, device=self._device).view(self._dtype)

    def read_on(self, flat: torch.Tensor, stream: torch.cuda.Stream) -> None:
        """The batch is handed over for use on this stream."""
        self._readers[flat.data_ptr()] = stream

    def clear(self) -> None:
        self._free.clear()


class _Loan:
    """What a tensor made of it keeps alive as long as anything uses the memory."""

    def __init__(self, block: torch.Tensor) -> None:
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": tuple(block.shape),
            "typestr": "|u1",
            "data": (block.data_ptr(), False),
            "strides": None,
            "version": 3,
        }


def _come_back(
    free: deque[tuple[torch.Tensor, list[torch.cuda.Event]]],
    readers: dict[int, torch.cuda.Stream],
    block: torch.Tensor,
) -> None:
    with suppress(RuntimeError):  # of a CUDA that has failed, or is being shut down
        current = torch.cuda.current_stream(block.device)
        used = []
        for stream in {current, readers.pop(block.data_ptr(), current)}:
            block.record_stream(stream)  # for when torch gets it back
            used.append(stream.record_event())
        free.append((block, used))


def out_of_memory(size: int) -> MillError:
    return MillError(
        f"there is no memory for another batch of {size / 2**30:.1f} GiB: take a smaller "
        "batch_size, prefetch or recipe"
    )
