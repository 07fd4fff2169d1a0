"""PIL's results for encoded images: pixels or nothing; and loaders to compare with them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

from patchmill import loaders
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.decode.jpeg_header import plain_jpeg
from patchmill.loaders.recipe import Crop, Recipe, Views

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
RECIPE = Recipe(
    (Views("whole", 1, 12), Views("crop", 2, 9, Crop((0.05, 0.6)), turns=True)), name="compared"
)


def by_pil(data: bytes) -> np.ndarray | None:
    """The pixels of `convert("RGB")`, or of 16 bits the upper 8; None if PIL cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
                    grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, 2)
                if image.mode in ("I", "F") and not _fits_8_bits(np.asarray(image), image.mode):
                    return None
                return np.asarray(image.convert("RGB"))
    except Exception:  # its plugins raise anything
        return None


def _fits_8_bits(pixels: np.ndarray, mode: str) -> bool:
    low, high = float(pixels.min()), float(pixels.max())
    return low >= 0 and high <= 255 and not (mode == "F" and 0 < high <= 1)


class Encoded:
    """Encoded images in memory, as a source."""

    classes: Sequence[str] = ()

    def __init__(self, name: str, files: Sequence[bytes]) -> None:
        self.name, self.files, self.labels = name, files, None
        self.fingerprint = f"encoded-{len(files)}"

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        return self.files[index]

    def where(self, index: int) -> str:
        return f"image {index}"


def as_pil_sees(files: Sequence[bytes], refused: Sequence[int] = ()) -> Encoded:
    """The same images as raw pixels; images PIL cannot read, or `refused`, have no bytes."""
    raw = []
    for index, data in enumerate(files):
        pixels = None if index in refused else by_pil(data)
        raw.append(b"" if pixels is None else b"P6 %d %d 255\n" % pixels.shape[1::-1])
        if pixels is not None:
            raw[-1] += pixels.tobytes()
    return Encoded("as PIL sees them", raw)


class Epoch:
    """An epoch of a source with any number of bad samples: ids in order, views in rows."""

    def __init__(self, source: Any, pipeline: str, ledger: Path, batch_size: int = 16) -> None:
        loader = loaders.build(
            source, RECIPE, batch_size, pipeline=pipeline, ledger=ledger, workers=2, drop_last=False
        )
        loader.ledger.limit = len(loader.source)
        batches = list(loader)
        loader.close()
        self.ids = [id for batch in batches for id in batch.ids.tolist()]
        rows = [torch.cat([v.flatten(1) for v in one.views.values()], 1) for one in batches]
        self.views, self.bad = torch.cat(rows), dict(loader.ledger._bad)

    def differs(self, other: Epoch, excused: Callable[[int], bool] = lambda id: False) -> list[str]:
        """Differences from another epoch of the same samples, except `excused` ones."""
        found = []
        for id in sorted(self.bad.keys() ^ other.bad.keys()):
            if not excused(id):
                entry, here = self.bad.get(id) or other.bad[id], "bad" if id in self.bad else "good"
                found.append(f"image {id} is {here} only here: {entry['reason']}")
        if self.bad.keys() == other.bad.keys() and self.ids != other.ids:
            found.append("samples or their order differ")
        views = dict(zip(other.ids, other.views, strict=True))
        for id, row in zip(self.ids, self.views, strict=True):
            if id in views and not bool((views[id] == row).all()) and not excused(id):
                found.append(f"image {id}: pixels differ")
        return found


def only_pil_minds(data: bytes) -> bool:
    """True for a JPEG that is passed to DALI and that libjpeg-turbo at least warns about.

    Some damage is an error in PIL but not in DALI, a documented deviation.
    """
    if plain_jpeg(data) is None:
        return False
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except (ValueError, MemoryError):
        return True
    return False
