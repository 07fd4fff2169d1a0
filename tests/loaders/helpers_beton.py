"""Betons for tests: writing, overwriting and patching them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchmill.loaders.sources.beton import layout
from patchmill.loaders.sources.beton.writer import BetonWriter


def pixels(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    height, width = 20 + 7 * index % 30, 20 + 11 * index % 40
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(index: int, kind: str = "JPEG", mode: str = "RGB", **settings: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(index)).convert(mode).save(stream, kind, **settings)
    return stream.getvalue()


def write_beton(path: Path, images: list[bytes], **settings: Any) -> Path:
    """Write a beton of these images, labelled 0, 1, 2, 0, 1, ..."""
    with BetonWriter(path, len(images), ["a", "b", "c"], **settings) as writer:
        for index, data in enumerate(images):
            mask = encode(index, "PNG", "L") if settings.get("masks") else b""
            writer.add(data, index % 3, mask)
    return path


def overwrite_image(path: Path, index: int, data: bytes) -> None:
    """Replace the bytes of a stored image by others of at most the same length."""
    with open(path, "r+b") as file:
        header = np.frombuffer(file.read(layout.HEADER.itemsize), layout.HEADER)[0]
        file.seek(int(header["allocations"]) + index * layout.ALLOCATION.itemsize)
        start, size = np.frombuffer(file.read(layout.ALLOCATION.itemsize), layout.ALLOCATION)[
            0
        ].item()[1:]
        assert len(data) <= size
        file.seek(start)
        file.write(data + bytes(size - len(data)))


def patch_bytes(path: Path, at: int, value: bytes) -> Path:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value)
    return path


def damage_record(path: Path, index: int, change: dict[str, int]) -> None:
    """Change members of an image's record in a beton that `write_beton` wrote without masks."""
    dtype = layout.table_dtype([layout.IMAGE_TYPE, layout.INT_TYPE])
    at = layout.HEADER.itemsize + 2 * layout.FIELD.itemsize + index * dtype.itemsize
    record = np.fromfile(path, dtype, 1, offset=at)
    for name, value in change.items():
        record["f0"][name] = value
    patch_bytes(path, at, record.tobytes())
