"""`Store`: decoded images in one memory-mapped file that all processes of a machine share.

Any number of threads and processes read and fill it at once. Space is handed out in extents under
a short file lock; pixels are written, then the record that says where they are. Space is not used
twice while anybody uses the store, so that an image which was handed out stays as it is.

Pixels are written with `write`, not through the map: a full disk is then an error that is counted,
where it would end the process with a bus error.
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
MOST_EXTENT = 16 << 20  # bytes of pixels that a process takes at a time


class Store:
    """The decoded images of one source. `pixels` and `slots` show those that this loader trusts.

    A record that another loader wrote is looked at when its image is first asked for: the encoded
    image must be the one that was decoded, and the pixels must have the checksum that the record
    says. From then on the image is in `slots`, which compiled code may read, too.
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
        """The image as uint8 [height, width, 3], not to be written to; None: decode it."""
        height = self._heights.item(id)
        if not height:
            if not self._published.item(id) or not self._adopt(id):
                return None
            height = self._heights.item(id)
        width, start = self._widths.item(id), self._offsets.item(id)
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def read(self, id: int) -> tuple[bytes, int]:
        """The encoded bytes of a sample, and the stamp to offer its image with."""
        stamp = self._stamp(id)
        data = self._source.read(id)  # after its stamp: of a newer image the stamp is then too old
        return data, records.content_stamp(data) if stamp is None else stamp

    def prefetch(self, ids: np.ndarray) -> None:
        """Announce samples that will be read soon; does not wait."""
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
        """Keep a decoded image if it fits; with a stamp of 0, or if it is there, do nothing.

        Returns True if it was kept.
        """
        if not stamp or self._heights.item(id) or not self.has_room(image.nbytes):
            return False
        try:
            offset = self._reserve(image.nbytes)
            if offset is None:
                return False
            record = records.make_record(id, offset, image, stamp)
            _write(self._file, image.reshape(-1).data, self._pixels_at + offset)
            _write(self._file, record.data.cast("B"), records.PAGE + id * record.nbytes)
        except (OSError, MillError) as error:  # no fault of the sample's
            self._unfit, self.full = 0, True
            reason = getattr(error, "strerror", None) or str(error)
            log.warning("the decoded cache %s stays as it is: %s", self.path, reason)
            return False
        self._show(id, record)
        return True

    def shows_what_is_written(self) -> bool:
        """True if the map shows the file as it is written; the lock file must be held."""
        probe = os.urandom(8)
        _write(self._file, probe, records.PROBE_AT)
        return self._map[records.PROBE_AT : records.PROBE_AT + 8] == probe

    def has_room(self, size: int) -> bool:
        """True if this process may still keep an image of `size` bytes.

        A forked child only reads: it would fill the extent that its parent fills.
        """
        return records.aligned(size) < self._unfit and os.getpid() == self._process

    def stats(self, hits: int) -> CacheStats:
        images = int(np.count_nonzero(self._published))
        used = min(_read_used(self._file), self.capacity)
        return CacheStats(self.place, hits, images, len(self), used, self.capacity, self.full)

    def _adopt(self, id: int) -> bool:
        """Trust a record if it adds up and its sample is unchanged."""
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
        """Take a record out of the store; its pixels are dead, until the store starts again."""
        with contextlib.suppress(OSError):
            _write(self._file, bytes(record.nbytes), records.PAGE + id * record.nbytes)

    def _show(self, id: int, record: np.ndarray) -> None:
        """Show a record's image to this loader, the height last."""
        offset = record["offset"].item()
        with self._lock:
            if self._heights.item(id):
                return
            self._offsets[id], self._widths[id] = offset, record["width"].item()
        with self._lock:  # on ARM, too: to let go of a lock is to make visible what came before
            if self._offsets.item(id) == offset:  # else another thread is about to show its own
                self._heights[id] = record["height"].item()

    def _reserve(self, size: int) -> int | None:
        """Bytes from the start of the pixels to free space; None if there is not enough."""
        size = records.aligned(size)
        with self._lock:
            if self._next + size > self._end and not self._extend(size):
                return None
            self._next += size
            return self._next - size

    def _extend(self, size: int) -> bool:
        """Take a new extent that holds `size` bytes."""
        with locks.locked(locks.beside(self.path)):
            used = _read_used(self._file)
            room = min(self.capacity, self.pixels.size) - used
            if used != self._end:  # others have taken extents since
                self._next = self._end = used
            need = size - (self._end - self._next)
            if need > room:
                self.full, self._unfit = True, min(self._unfit, size)
                return False
            end = self._end + min(max(self._extent, need), room)
            _write(self._file, end.to_bytes(8, "little"), records.USED_AT)
            self._end = end
        return True


def _is_stamped(source: Source) -> bool:
    """True if samples are known to be unchanged without being read."""
    try:
        return source.stamp(0) is not None
    except OSError:
        return True


def _mapped(path: Path) -> mmap.mmap:
    """A map of the file, with an open file of its own: it does not keep the store in use."""
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
