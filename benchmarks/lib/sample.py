"""The images that a benchmark runs on: a sample of a data set, repeated endlessly."""

from __future__ import annotations

import copy
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchmill.loaders.build import default_workers
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.decode.decoder import BadImage, decode
from patchmill.loaders.sources import Source

LENGTH = 10**8  # samples: no measurement reaches an epoch's end, which would drain pipelines

JPEG = b"\xff\xd8"


class Sample:
    """Up to `count` decodable images, evenly spaced over `source`, as an endless source."""

    classes: list[str]
    labels: np.ndarray | None = None

    def __init__(self, source: Source, count: int, plain: bool = False) -> None:
        """`plain`: only JPEGs that every decoder can decode."""
        self.name, self.fingerprint = source.name, f"{source.fingerprint}-sample{count}"
        self.classes = []
        self._source = source
        wanted = range(0, len(source), max(1, len(source) // count))[:count]
        contents = map_in_threads(lambda id: _read_decodable(source, id), wanted, default_workers())
        usable = {
            id: data
            for id, data in zip(wanted, contents, strict=True)
            if data and (is_plain_jpeg(data) or not plain)
        }
        if not usable:
            what = "is a plain JPEG" if plain else "can be decoded"
            raise MillError(f"none of {len(wanted)} images of {source.name!r} {what}")
        self.ids = list(usable)
        self.encoded = list(usable.values())
        self.skipped = len(wanted) - len(usable)
        self._times = LENGTH // len(usable)

    def repeated(self, length: int) -> Sample:
        """The same images, ending after at least `length` samples."""
        sample = copy.copy(self)
        sample._times = -(-length // len(self.ids))
        sample.fingerprint = f"{self.fingerprint}-times{sample._times}"
        return sample

    def __len__(self) -> int:
        return len(self.ids) * self._times

    def read(self, index: int) -> bytes:
        return self._source.read(self.ids[index % len(self.ids)])

    def read_many(self, ids: np.ndarray, memory: np.ndarray) -> list[bytes | None]:
        """Read samples together, if the source can."""
        return self._source.read_many(np.array(self.ids)[ids % len(self.ids)], memory)

    def read_into(self, ids: np.ndarray, memory: np.ndarray) -> np.ndarray | None:
        return self._source.read_into(np.array(self.ids)[ids % len(self.ids)], memory)

    def where(self, index: int) -> str:
        return self._source.where(self.ids[index % len(self.ids)])

    def write_files(self, folder: Path) -> list[str]:
        """Write the images as files, for libraries that read nothing else; returns their paths."""
        paths = [folder / f"{number:06d}.jpg" for number in range(len(self.encoded))]
        try:
            for path, data in zip(paths, self.encoded, strict=True):
                path.write_bytes(data)
        except OSError as error:
            raise MillError(
                f"cannot write the images for the peers to {folder}: {error.strerror}; "
                "free some space or point TMPDIR to another folder"
            ) from None
        return list(map(str, paths))


def is_plain_jpeg(data: bytes) -> bool:
    """True for a JPEG in grey or with three components."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.mode in ("L", "RGB")
    except OSError:
        return False


def describe(images: Sequence[bytes]) -> dict[str, Any]:
    """Count, mean size and mean bytes of encoded images, for the report."""
    shapes = list(map_in_threads(lambda data: decode(data).shape, images, default_workers()))
    return {
        "count": len(images),
        "jpegs": sum(data[:2] == JPEG for data in images),
        "width": round(statistics.fmean(shape[1] for shape in shapes)),
        "height": round(statistics.fmean(shape[0] for shape in shapes)),
        "kilobytes": round(statistics.fmean(map(len, images)) / 1e3, 1),
        "kilopixels": round(statistics.fmean(h * w for h, w, _ in shapes) / 1e3, 1),
    }


def _read_decodable(source: Source, id: int) -> bytes | None:
    try:
        data = source.read(id)
        decode(data)
    except (OSError, BadImage):
        return None
    return data
