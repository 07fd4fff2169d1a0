"""FFCV's .beton files as a source for every pipeline, read without FFCV.

Opening reads the tables, but no samples. A sample that is not where the table says raises OSError
when it is read, and goes to the ledger like any unreadable file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_places
from patchmill.loaders.copypaste.mask_places import MaskPlaces
from patchmill.loaders.decoded.images import PLACE, DecodedImages
from patchmill.loaders.files import mapped, stamps
from patchmill.loaders.sources.beton import header, layout
from patchmill.loaders.sources.numbered import NumberedSource
from patchmill.loaders.sources.reopened import Reopened

_HASHED_BYTES = 64 << 20  # tables up to this size (two million samples) are hashed whole
_PIECES = 1024  # number of evenly spaced pieces hashed of larger tables
_MAX_CLASSES = 1 << 20  # a field with larger values does not hold classes


class Beton(Reopened, NumberedSource):
    """The images of a .beton that was written in FFCV's jpg, raw or smart mode.

    `image`, `label` and `mask` name the fields if their names differ. A raw image is returned as a
    PPM: a line of text, then its pixels.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image: str | None = None,
        label: str | None = None,
        mask: str | None = None,
    ) -> None:
        self.name = str(path)
        self.path = os.path.realpath(os.path.expanduser(self.name))
        self._file = header.open_file(self.name, self.path)
        weakref.finalize(self, os.close, self._file)
        opened = header.parse(self.name, self._file)
        self._count, self._allocations = len(opened.table), opened.allocations
        self._file_size = opened.size
        self._pages_end = int(opened.header["allocations"])
        self.field = opened.choose("image", image, layout.IMAGE_TYPE) or ""
        if not self.field:
            listed = ", ".join(opened.fields) or "none"
            raise MillError(f"{self.name} has no images; its fields are: {listed}")
        self.fields = list(opened.fields)
        self._images = opened.column(self.field)
        labels = opened.choose("label", label, layout.INT_TYPE)
        self.labels: np.ndarray | None = opened.column(labels) if labels else None
        masked = mask is not None or "mask" in opened.fields
        masks = (
            opened.choose("mask", mask, layout.BYTES_TYPE, layout.IMAGE_TYPE) if masked else None
        )
        self._masks = opened.column(masks) if masks else None
        self.masked = self._masks is not None
        self.checksums, self._classes = opened.annex(self.field)  # CRC-32 of each image, or None
        self.fingerprint = _fingerprint(opened)

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def classes(self) -> list[str]:
        """Class names from our writer; class numbers for files of FFCV's, which stores no names."""
        if self._classes or self.labels is None or not self._count:
            return self._classes
        least, most = int(self.labels.min()), int(self.labels.max())
        are_classes = least >= 0 and most < _MAX_CLASSES
        return [str(number) for number in range(most + 1)] if are_classes else []

    def read(self, index: int) -> bytes:
        if self._is_truncated():
            raise OSError("the file has been truncated")
        return self._encoded(self._images[index], index)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray | None:
        if self._is_truncated():
            return None
        from patchmill.loaders.sources import ranges  # needs Numba

        sizes, records = self._jpeg_sizes[ids], self._images[ids]
        files = np.full(len(ids), self._file, np.int32)
        return ranges.read_into(files, records["start"].astype(np.int64), sizes, memory)

    def stamp(self, index: int) -> int:
        return stamps.of_file(os.fstat(self._file))

    def decoded_images(self) -> DecodedImages | None:
        """The images in raw mode, in the file's memory map; None if there are none."""
        return None if self._is_truncated() else self._raw_images

    @functools.cached_property
    def _raw_images(self) -> DecodedImages | None:
        records = self._images
        size = 3 * records["height"].astype(np.int64) * records["width"]
        stored, pages_end = self._stored_sizes(), np.uint64(self._pages_end)
        inside = (records["start"] < pages_end) & (size <= pages_end - records["start"])
        raw = (records["mode"] == layout.RAW) & (size > 0) & (size == stored) & inside
        if not raw.any():
            return None
        places = np.zeros(len(records), PLACE)
        for ours, theirs in (("offset", "start"), ("height", "height"), ("width", "width")):
            places[ours] = np.where(raw, records[theirs], 0)
        try:
            memory = mmap.mmap(self._file, self._file_size, access=mmap.ACCESS_READ)
        except ValueError:  # it has been truncated, which reading reports
            return None
        mapped.guard(memory, self.path)
        return DecodedImages(np.frombuffer(memory, np.uint8), places)

    def _is_truncated(self) -> bool:
        """True if samples may be missing; `mapped` notices later truncation."""
        return os.fstat(self._file).st_size < self._file_size

    def mask(self, index: int) -> np.ndarray | None:
        """uint8 [height, width]; None if the sample has none.

        Of a mask stored in one of FFCV's RGB fields, the first channel is used.
        """
        if self._masks is None:
            return None
        record = self._masks[index]
        if record.dtype == layout.BYTES_RECORD and not record["size"]:
            return None
        data = self._encoded(record, index)
        if record.dtype == layout.IMAGE_RECORD:
            from patchmill.loaders.decode.decoder import decode

            return np.ascontiguousarray(decode(data)[:, :, 0])
        from patchmill.loaders.copypaste.mask_png import decode_mask

        return decode_mask(data, lambda: f"the mask of {self.where(index)}")

    def mask_places(self) -> MaskPlaces | None:
        """Places of the masks; None unless they are stored as bytes."""
        records = self._masks
        if records is None or records.dtype != layout.BYTES_RECORD:
            return None
        places = np.zeros(len(records), mask_places.PLACE)
        inside = records["start"] + records["size"] <= self._pages_end
        small = records["size"] < 1 << 31
        places["start"], places["size"] = records["start"], np.where(small, records["size"], 0)
        kinds = np.where(inside & small, mask_places.USABLE, mask_places.ODD)
        places["kind"] = np.where(records["size"] == 0, mask_places.ABSENT, kinds)
        return MaskPlaces(self._file, places)

    def where(self, index: int) -> str:
        return f"{self.path}, sample {index} at byte {self._images['start'][index]}"

    def _encoded(self, record: np.void, index: int) -> bytes:
        data = self._bytes(index, int(record["start"]))
        if record.dtype != layout.IMAGE_RECORD or record["mode"] == layout.JPG:
            return data
        if record["mode"] != layout.RAW:
            raise OSError(f"it is stored in an unknown mode ({record['mode']})")
        width, height = int(record["width"]), int(record["height"])
        if len(data) != width * height * 3:
            raise OSError(f"{len(data)} bytes are not {width} x {height} raw pixels")
        return b"P6 %d %d 255\n" % (width, height) + data

    def _bytes(self, index: int, start: int) -> bytes:
        """Read by pread, which releases the GIL, unlike page faults in a memory map."""
        size = self._size(index, start)
        if start + size > self._pages_end:
            raise OSError(f"it would end at byte {start + size}, which is past the pages")
        data = os.pread(self._file, size, start)
        while len(data) < size:
            more = os.pread(self._file, size - len(data), start + len(data))
            if not more:
                raise OSError("the file has been truncated")
            data += more
        return data

    def _size(self, index: int, start: int) -> int:
        """Bytes allocated at `start`; allocations are in sample order if one process wrote them."""
        guess = index * (len(self._allocations) // self._count)
        if self._allocations["start"][guess] == start:
            return int(self._allocations["size"][guess])
        starts, sizes = self._sorted_allocations
        at = int(np.searchsorted(starts, np.uint64(start)))
        if at == len(starts) or starts[at] != start:
            raise OSError(f"nothing was stored at byte {start}")
        return int(sizes[at])

    def _stored_sizes(self) -> np.ndarray:
        """Bytes allocated at each image's start; -1 if there are none."""
        starts, sizes = self._sorted_allocations
        at = np.searchsorted(starts, self._images["start"]).clip(max=len(starts) - 1)
        return np.where(starts[at] == self._images["start"], sizes[at].astype(np.int64), -1)

    @functools.cached_property
    def _jpeg_sizes(self) -> np.ndarray:
        """Bytes of each image that is stored as a JPEG and lies within the pages, or -1."""
        records, sizes = self._images, self._stored_sizes()
        start, pages_end = records["start"], np.uint64(self._pages_end)
        inside = (start < pages_end) & (sizes.astype(np.uint64) <= pages_end - start)
        return np.where((records["mode"] == layout.JPG) & (sizes > 0) & inside, sizes, -1)

    @functools.cached_property
    def _sorted_allocations(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._allocations["start"])
        return self._allocations["start"][order], self._allocations["size"][order]


def _fingerprint(opened: header.BetonTables) -> str:
    """Hash of the header, the fields and the table, or of evenly spaced pieces of a large table."""
    content = hashlib.sha256(opened.header.tobytes() + json.dumps(opened.fields).encode())
    raw = opened.table.view(np.uint8).data
    if len(raw) <= _HASHED_BYTES:
        content.update(raw)
    else:
        piece = _HASHED_BYTES // _PIECES
        for i in range(_PIECES):
            start = i * (len(raw) - piece) // (_PIECES - 1)
            content.update(raw[start : start + piece])
    return content.hexdigest()[:16]
