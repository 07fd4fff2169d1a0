"""Write FFCV's .beton format with the images as encoded, plus checksums and class names.

The output is deterministic: the same samples give the same bytes. FFCV's own reader can read it,
because checksums and class names lie in an annex that it ignores (see `layout`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.decode.jpeg_header import jpeg_frame
from patchmill.loaders.sources.beton import layout

PAGE_SIZE = 1 << 23  # the default of FFCV's writer
_MIN_PAGE, _MAX_PAGE = 1 << 21, 1 << 31
_MAX_SIDE = 65_535


class BetonWriter:
    """Writes a file of up to `capacity` samples under a temporary name and renames it at the end.

        with BetonWriter("train.beton", capacity, classes) as writer:
            writer.add(data, label)

    An exception inside the block leaves no file. FFCV reads a page at a time when it manages its
    own memory, so a sample never crosses pages. Masks are stored as given; empty bytes are no mask.
    """

    def __init__(
        self,
        path: str | Path,
        capacity: int,
        classes: Sequence[str] = (),
        *,
        masks: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> None:
        if page_size & (page_size - 1) or not _MIN_PAGE <= page_size <= _MAX_PAGE:
            raise MillError(
                f"page_size must be a power of two from {_MIN_PAGE} to {_MAX_PAGE} bytes, "
                f"not {page_size}"
            )
        self._path, self._classes = Path(path), list(classes)
        self._page_size, self._masks = page_size, masks
        self._fields = {"image": layout.IMAGE_TYPE, "label": layout.INT_TYPE}
        if masks:
            self._fields["mask"] = layout.BYTES_TYPE
        self._table = np.zeros(capacity, layout.table_dtype(list(self._fields.values())))
        self._allocations = np.zeros((capacity, 1 + masks), layout.ALLOCATION)
        self._sums = np.zeros(capacity, layout.CHECKSUM)
        self._count = 0
        self._table_start = layout.HEADER.itemsize + len(self._fields) * layout.FIELD.itemsize
        self._at = self._page_after(self._table_start + self._table.nbytes)
        self._temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.tmp")
        with self._writing():
            self._file = open(self._temporary, "wb")

    def __enter__(self) -> BetonWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with self._writing():
                    self._finish()
        finally:
            self._file.close()
            with contextlib.suppress(OSError):  # already renamed
                self._temporary.unlink()

    def add(self, data: bytes, label: int, mask: bytes = b"") -> None:
        """Append a sample; BadImage if `data` cannot be decoded.

        JPEGs are stored as they are; those that FFCV cannot decode, and images of all other
        formats, are stored as raw pixels.
        """
        if self._count == len(self._table):
            raise MillError(f"{self._path} was opened for {self._count} samples: there are more")
        mode, height, width, data = _to_stored(data)
        parts = [data, mask] if self._masks else [data]
        starts = self._allocate([max(len(part), 1) for part in parts])  # offsets must be distinct
        with self._writing():
            self._file.seek(starts[0])
            self._file.write(b"".join(parts))
        i = self._count
        record = self._table[i]
        record["f0"], record["f1"] = (mode, width, height, starts[0]), label
        if self._masks:
            record["f2"] = (starts[1], len(mask))
        self._allocations[i] = [(i, at, len(p)) for at, p in zip(starts, parts, strict=True)]
        self._sums[i] = zlib.crc32(data)
        self._count += 1

    def _allocate(self, sizes: list[int]) -> list[int]:
        """Offsets of a sample's parts: consecutive, in the current page or the next."""
        total, page = sum(sizes), self._page_size
        if total > page:
            raise MillError(
                f"sample {self._count} takes {total} bytes, more than a page of {page}: "
                f"use a page_size of {1 << (total - 1).bit_length()}"
            )
        if self._at % page + total > page:
            self._at = self._page_after(self._at)
        starts = [self._at + sum(sizes[:i]) for i in range(len(sizes))]
        self._at += total
        return starts

    def _finish(self) -> None:
        count, names = self._count, json.dumps(self._classes).encode()
        annex = self._page_after(self._at)
        header, fields = np.zeros(1, layout.HEADER), np.zeros(len(self._fields), layout.FIELD)
        allocations = annex + self._sums[:count].nbytes + len(names)
        header[0] = (layout.VERSION, len(fields), self._page_size, count, allocations)
        for field, (name, kind) in zip(fields, self._fields.items(), strict=True):
            field["type"], field["name"][: len(name)] = kind, list(name.encode())
        pointer = np.array((layout.ANNEX_MAGIC, annex, len(names)), layout.ANNEX)
        fields[0]["arguments"][: pointer.nbytes] = np.frombuffer(pointer.tobytes(), np.uint8)
        self._file.seek(annex)
        for part in (self._sums[:count].data, names, self._allocations[:count].data):
            self._file.write(part)
        self._file.seek(0)
        for array in (header, fields, self._table[:count]):
            self._file.write(array.data)
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self._path)

    def _page_after(self, at: int) -> int:
        return -(-at // self._page_size) * self._page_size

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MillError(
                f"cannot write {self._path}: {error.strerror or error}; free some space, or write "
                "it elsewhere"
            ) from None


def _to_stored(data: bytes) -> tuple[int, int, int, bytes]:
    """Storage mode, height, width, and the bytes to store."""
    frame = jpeg_frame(data)
    if frame is not None and frame.components in (1, 3):
        mode, height, width = layout.JPG, frame.height, frame.width
    else:
        image = decode(data)
        mode, height, width, data = layout.RAW, image.shape[0], image.shape[1], image.tobytes()
    if max(height, width) > _MAX_SIDE:
        raise BadImage(f"{width} x {height} pixels are more than a .beton can hold")
    return mode, height, width, data
