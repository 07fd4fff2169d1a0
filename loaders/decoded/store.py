"""`Store`: decoded images in one memory-mapped file that all processes of a machine share.

Any number of threads and processes read and fill it concurrently. Space is allocated in extents
under a short file lock; pixels are written first, then the record that locates them. Space is not
reused while the store has users, so that an image in use never changes.

Pixels are written with `write` rather than through the map: a full disk is then an error that can
be handled, while a write through the map would kill the process with a bus error.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decoded import locks, records
from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.decoded.images import PLACE, DecodedImages
from patchmill.loaders.decoded.spec import CacheSpec
from patchmill.loaders.files import mapped

if TYPE_CHECKING:
    from patchmill.loaders.sources import Source

log = logging.getLogger("patchmill")

_LARGEST = 2**64 - 1
MOST_EXTENT = 16 << 20  # bytes of pixels that a process allocates at a time


class Store:
    """The decoded images of one source. `pixels` and `slots` show those that this loader trusts.

    A record that another loader wrote is verified when its image is first requested: the encoded
    image must be unchanged since it was decoded, and the pixels must match the record's checksum.
    From then on, the image is in `slots`, which compiled code may read, too.
    """

    def __init__(self, path: Path, file: int, source: Source, wanted: CacheSpec) -> None:
        self.path, self.place, self.capacity = path, wanted.place, wanted.capacity
        self.full = False  # an image did not fit
        self._file, self._source = file, source
        self._on_disk, self._is_stamped = wanted.kind == "disk", _is_stamped(source)
        count = len(source)
        self._pixels_at = records.pixels_at(count)
        self._map = _mapped(path)
        self.pixels = np.frombuffer(self._map, np.uint8, offset=self._pixels_at)
        self.slots = np.zeros(count, PLACE)
        self.images = DecodedImages(self.pixels, self.slots)
        self._records = np.frombuffer(self._map, records.RECORD, count, records.PAGE)
        self._published = self._records["height"]
        self._heights, self._widths = self.slots["height"], self.slots["width"]
        self._offsets = self.slots["offset"]
        self._lock, self._process = threading.Lock(), os.getpid()
        self._next = self._end = 0  # the extent that this process fills
        self._extent = min(MOST_EXTENT, max(self.capacity // 64, records.PAGE))
        self._unfit = 1 << 62  # bytes of the smallest image that did not fit

    def __len__(self) -> int:
        return len(self.slots)

    def image(self, id: int) -> np.ndarray | None:
        """The image as uint8 [height, width, 3], which must not be written to; None if missing."""
        height = self._heights.item(id)
        if not height:
            if not self._published.item(id) or not self._adopt(id):
                return None
            height = self._heights.item(id)
        width, start = self._widths.item(id), self._offsets.item(id)
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def read(self, id: int) -> tuple[bytes, int]:
        """The encoded bytes of a sample, and the stamp to pass to `offer`."""
        stamp = self._stamp(id)
        data = self._source.read(id)  # after the stamp, which a newer image then does not match
        return data, records.content_stamp(data) if stamp is None else stamp

    def prefetch(self, ids: np.ndarray) -> None:
        """Start fetching samples that will be read soon, without waiting."""
        there = (self._published if self._is_stamped else self._heights)[ids] > 0
        self._source.prefetch(ids[~there])
        if not self._on_disk or not hasattr(os, "posix_fadvise"):
            return
        for record in self._records[ids[there]].tolist():
            offset, _, height, width, *_ = record
            with contextlib.suppress(OSError):
                start, size = self._pixels_at + offset, height * width * 3
                os.posix_fadvise(self._file, start, size, os.POSIX_FADV_WILLNEED)

    def offer(self, id: int, image: np.ndarray, stamp: int) -> bool:
        """Keep a decoded image if it fits, unless its stamp is 0 or it is there already.

        Returns True if it was kept.
        """
        if not stamp or self._heights.item(id) or not self.may_keep(image.nbytes):
            return False
        try:
            offset = self._reserve(image.nbytes)
            if offset is None:
                return False
            record = records.make_record(id, offset, image, stamp)
            _write(self._file, image.reshape(-1).data, self._pixels_at + offset)
            _write(self._file, record.data.cast("B"), records.PAGE + id * record.nbytes)
        except (OSError, MillError) as error:  # not the sample's fault
            self._unfit, self.full = 0, True
            reason = getattr(error, "strerror", None) or str(error)
            log.warning("the decoded cache %s stops growing: %s", self.path, reason)
            return False
        self._show(id, record)
        return True

    def map_shows_writes(self) -> bool:
        """True if the map shows what is written to the file; the lock file must be held."""
        probe = os.urandom(8)
        _write(self._file, probe, records.PROBE_AT)
        return self._map[records.PROBE_AT : records.PROBE_AT + 8] == probe

    def may_keep(self, size: int) -> bool:
        """True if this process may still keep an image of `size` bytes.

        A forked child only reads: it would write to the same extent as its parent.
        """
        return records.aligned(size) < self._unfit and os.getpid() == self._process

    def stats(self, hits: int) -> CacheStats:
        images = int(np.count_nonzero(self._published))
        used = min(_read_used(self._file), self.capacity)
        return CacheStats(self.place, hits, images, len(self), used, self.capacity, self.full)

    def _adopt(self, id: int) -> bool:
        """Verify a record, and trust it if it is valid and its sample unchanged."""
        record = self._records[id : id + 1].copy()
        if not records.whole(record, np.array([id]), self.pixels.size)[0]:
            return False
        stamp = record["stamp"].item()
        try:
            now = self._stamp(id)
            now = self.read(id)[1] if now is None else now
        except OSError:
            return False  # reading the sample will raise the error again, for the ledger
        if now != stamp:
            self._forget(id, record)
            return False
        start, height, width = (record[name].item() for name in ("offset", "height", "width"))
        pixels = self.pixels[start : start + height * width * 3]
        if records.checksum(pixels) != record["checksum"].item():
            self._forget(id, record)
            return False
        self._show(id, record)
        return True

    def _stamp(self, id: int) -> int | None:
        stamp = self._source.stamp(id)
        return None if stamp is None else int(stamp) & _LARGEST

    def _forget(self, id: int, record: np.ndarray) -> None:
        """Remove a record from the store; its pixels waste space until the store is recreated."""
        with contextlib.suppress(OSError):
            _write(self._file, bytes(record.nbytes), records.PAGE + id * record.nbytes)

    def _show(self, id: int, record: np.ndarray) -> None:
        """Make a record's image visible to this loader, writing the height last."""
        offset = record["offset"].item()
        with self._lock:
            if self._heights.item(id):
                return
            self._offsets[id], self._widths[id] = offset, record["width"].item()
        with self._lock:  # for ARM: releasing a lock makes earlier writes visible
            if self._offsets.item(id) == offset:  # otherwise another thread is showing its own
                self._heights[id] = record["height"].item()

    def _reserve(self, size: int) -> int | None:
        """Allocate space, and return its offset in the pixels; None if there is not enough."""
        size = records.aligned(size)
        with self._lock:
            if self._next + size > self._end and not self._extend(size):
                return None
            self._next += size
            return self._next - size

    def _extend(self, size: int) -> bool:
        """Allocate a new extent that holds `size` bytes."""
        with locks.locked(locks.lock_path(self.path)):
            used = _read_used(self._file)
            free = min(self.capacity, self.pixels.size) - used
            if used != self._end:  # others have allocated extents since
                self._next = self._end = used
            need = size - (self._end - self._next)
            if need > free:
                self.full, self._unfit = True, min(self._unfit, size)
                return False
            end = self._end + min(max(self._extent, need), free)
            _write(self._file, end.to_bytes(8, "little"), records.USED_AT)
            self._end = end
        return True


def _is_stamped(source: Source) -> bool:
    """True if samples can be recognised as unchanged without reading them."""
    try:
        return source.stamp(0) is not None
    except OSError:
        return True


def _mapped(path: Path) -> mmap.mmap:
    """Map the file through a separate descriptor, which does not keep the store in use."""
    with open(path, "r+b", buffering=0) as file:
        memory = mmap.mmap(file.fileno(), 0)
    mapped.guard(memory, str(path))
    return memory


def _read_used(file: int) -> int:
    return int.from_bytes(os.pread(file, 8, records.USED_AT), "little")


def _write(file: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
