"""DeviceCache: decoded images that stay in the GPU's memory, so that they cross the bus once."""

from __future__ import annotations

import logging
import threading

import numpy as np
import torch

from patchmill.kernels.views.gpu.copy import copy_images
from patchmill.kernels.views.gpu.tables import ImagePointers
from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.decoded.spec import size_text
from patchmill.loaders.ledger import Ledger

log = logging.getLogger("patchmill")

STEP_BYTES = 256 << 20  # allocated at a time
_ALIGNMENT = 16
_PLACE = np.dtype([("address", "i8"), ("height", "i4"), ("width", "i4")])


class DeviceCache:
    """Places of decoded images in at most `limit` bytes of a GPU's memory, by sample id.

    One thread at a time fills it, on one stream: an image is copied in after its upload or decoding
    on the device, and its place is published once the copy is queued. So a batch that was planned
    with a place may read it on the same stream, whose order puts the copy first; any other stream
    would have to wait for an event. Nothing is ever moved or overwritten, so later copies need not
    wait for readers. Images that do not fit are not cached.
    """

    def __init__(self, limit: int, samples: int, device: torch.device) -> None:
        """`samples` is the number of samples of the source."""
        self.images = self.bytes = 0  # in the cache
        self._limit, self._device = limit, device
        self._places, self._lock = np.zeros(samples, _PLACE), threading.Lock()
        self._blocks: list[torch.Tensor] = []
        self._allocated = self._next = self._end = 0  # bytes in all; addresses in the last block
        self._full = False

    def find(self, ids: np.ndarray, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
        """Addresses [N], and heights and widths [N, 2]; 0 for images that are missing or bad."""
        with self._lock:
            places = self._places[ids]
        if len(ledger):  # its samples are substituted, though they may once have been readable
            places[[id in ledger for id in ids.tolist()]] = 0
        return places["address"], np.stack([places["height"], places["width"]], 1)

    def holds(self, ids: np.ndarray) -> bool:
        """True if the images of all these samples are cached."""
        return bool((self._places["height"][ids] > 0).all())

    def place(self, id: int) -> tuple[int, int, int] | None:
        """Address, height and width of an image; None if it is not cached."""
        with self._lock:
            address, height, width = self._places[id].tolist()
        return (address, height, width) if height else None

    def stats(self, hits: int) -> CacheStats:
        samples = len(self._places)
        return CacheStats("device", hits, self.images, samples, self.bytes, self._limit, self._full)

    def add(self, ids: np.ndarray, images: ImagePointers) -> None:
        """Queue, on the current stream, copies of the images [N] that are new and fit."""
        missing = np.flatnonzero(self._places["height"][ids] == 0)
        if not len(missing):
            return
        slots = missing[np.sort(np.unique(ids[missing], return_index=True)[1])]
        heights, widths = images.shapes[slots].T
        sizes = 3 * heights * widths
        addresses = np.array([self._allocate(size) for size in sizes.tolist()], np.int64)
        fits = addresses > 0
        slots, sizes, addresses = slots[fits], sizes[fits], addresses[fits]
        if not len(slots):
            return
        copy_images(images.pointers[slots], addresses, sizes, self._device)
        places = np.zeros(len(slots), _PLACE)
        places["address"], places["height"], places["width"] = (
            addresses,
            heights[fits],
            widths[fits],
        )
        with self._lock:
            self._places[ids[slots]] = places
            self.images += len(slots)
            self.bytes += int(sizes.sum())

    def _allocate(self, size: int) -> int:
        """The address of `size` bytes, or 0 if they do not fit."""
        size = -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._next + size > self._end and not self._grow(size):
            return 0
        address, self._next = self._next, self._next + size
        return address

    def _grow(self, size: int) -> bool:
        """Allocate a block of at least `size` bytes; False if that is impossible."""
        step = min(STEP_BYTES, self._limit - self._allocated)
        if size > step:
            self._full |= size <= STEP_BYTES  # a larger image never fits
            return False
        try:
            block = torch.empty(step, dtype=torch.uint8, device=self._device)
        except torch.cuda.OutOfMemoryError:
            log.warning(
                "%s has no memory left: its cache of decoded images stays at %s of %s",
                self._device,
                size_text(self._allocated),
                size_text(self._limit),
            )
            self._limit, self._full = self._allocated, True
            return False
        self._blocks.append(block)
        self._allocated += step
        self._next, self._end = block.data_ptr(), block.data_ptr() + step
        return True
