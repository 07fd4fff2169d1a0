"""Make folders of images, prepare them, and read the results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.sources import Source, open_source


def pixels(number: int, height: int = 40, width: int = 60) -> np.ndarray:
    """Smooth, so that JPEG hardly changes it."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin((number + 3 * c) * x + (c + 1) * y) for c in range(3)]
    return (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def jpeg(number: int, height: int = 40, width: int = 60) -> bytes:
    return simplejpeg.encode_jpeg(pixels(number, height, width), 95, "RGB", "444")


def bulky(number: int, size: int) -> bytes:
    """A JPEG of this many bytes with a valid header and end, and nothing decodable between."""
    frame = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x20\x00\x30\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    noise = np.random.default_rng(number).integers(0, 255, size, np.uint8).tobytes()
    return frame + noise[: size - len(frame) - 2] + b"\xff\xd9"


def by_pil(image: Image.Image, format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def photos(root: Path, count: int = 30) -> Path:
    """JPEGs in three classes."""
    return write_folder(root, {f"class{i % 3}/{i}.jpg": jpeg(i) for i in range(count)})


def prepare(
    source: str | Path | Source, out: Path, format: str = "shards", **options: Any
) -> make_data.DataResult | None:
    opened = open_source(source) if isinstance(source, str | Path) else source
    overwrite, workers = options.pop("overwrite", False), options.pop("workers", 2)
    return make_data.make(opened, out, Options(format, **options), workers, overwrite)


def content(folder: Path) -> dict[str, bytes]:
    """Every file in the folder, including hidden ones."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def samples(source: Source) -> list[tuple[bytes, str | None]]:
    """Bytes and class names, in order."""
    labels: Sequence[str | None] = [None] * len(source)
    if source.labels is not None:
        labels = [source.classes[label] for label in source.labels.tolist()]
    return [(source.read(i), labels[i]) for i in range(len(source))]
