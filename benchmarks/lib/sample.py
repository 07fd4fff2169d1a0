"""The images that a benchmark runs on: some of a data set, whole ones only, over and over."""

from __future__ import annotations

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

ENDLESS = 10**8  # samples: no epoch's end empties a pipeline while it is measured

JPEG = b"\xff\xd8"


class Sample:
    """Up to `count` images from all over `source`, as a source that never ends."""

    classes: list[str]
    labels: np.ndarray | None = None

    def __init__(self, source: Source, count: int, plain: bool = False) -> None:
        """`plain`: only what every JPEG decoder can decode."""
        self.name, self.fingerprint = source.name, f"{source.fingerprint}-sample{count}"
        self.classes = []
        self._source = source
        wanted = range(0, len(source), max(1, len(source) // count))[:count]
        read = map_in_threads(lambda id: _whole(source, id), wanted, default_workers())
        found = {
            id: data
            for id, data in zip(wanted, read, strict=True)
            if data and (is_plain(data) or not plain)
        }
        if not found:
            what = "is a plain JPEG" if plain else "can be decoded"
            raise MillError(f"none of {len(wanted)} images of {source.name!r} {what}")
        self.ids = list(found)
        self.encoded = list(found.values())
        self.bad = len(wanted) - len(found)

    def __len__(self) -> int:
        return len(self.ids) * (ENDLESS // len(self.ids))

    def read(self, index: int) -> bytes:
        return self._source.read(self.ids[index % len(self.ids)])

    def where(self, index: int) -> str:
        return self._source.where(self.ids[index % len(self.ids)])

    def write_files(self, folder: Path) -> list[str]:
        """The images as files, for libraries that read nothing else."""
        paths = [folder / f"{number:06d}.jpg" for number in range(len(self.encoded))]
        try:
            for path, data in zip(paths, self.encoded, strict=True):
                path.write_bytes(data)
        except OSError as error:
            raise MillError(
                f"cannot write the images for the peers to {folder}: {error.strerror}; "
                "make room or point TMPDIR to another folder"
            ) from None
        return list(map(str, paths))


def is_plain(data: bytes) -> bool:
    """A JPEG, grey or of three components."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.mode in ("L", "RGB")
    except OSError:
        return False


def describe(images: Sequence[bytes]) -> dict[str, Any]:
    shapes = list(map_in_threads(lambda data: decode(data).shape, images, default_workers()))
    return {
        "count": len(images),
        "jpegs": sum(data[:2] == JPEG for data in images),
        "width": round(statistics.fmean(shape[1] for shape in shapes)),
        "height": round(statistics.fmean(shape[0] for shape in shapes)),
        "kilobytes": round(statistics.fmean(map(len, images)) / 1e3, 1),
        "kilopixels": round(statistics.fmean(h * w for h, w, _ in shapes) / 1e3, 1),
    }


def _whole(source: Source, id: int) -> bytes | None:
    try:
        data = source.read(id)
        decode(data)
    except (OSError, BadImage):
        return None
    return data
