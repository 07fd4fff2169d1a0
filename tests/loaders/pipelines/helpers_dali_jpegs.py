"""JPEGs for DALI's decoder: plain ones that it decodes, and bad ones that it must refuse."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def jpeg(
    seed: int = 0, height: int = 67, width: int = 93, mode: str = "RGB", **options
) -> np.ndarray:
    """A noisy gradient, so that chroma upsampling and rounding show."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    picture = np.clip(np.stack([2 * x, 3 * y, x + y], -1) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, "JPEG", **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def with_frame(marker: bytes) -> np.ndarray:
    """A JPEG with another start-of-frame segment."""
    return as_array(jpeg().tobytes().replace(b"\xff\xc0\x00\x11\x08", marker))


def too_large() -> np.ndarray:
    data = bytearray(jpeg().tobytes())
    size = data.find(b"\xff\xc0") + 5
    data[size : size + 4] = b"\x7f\xff\x7f\xff"
    return as_array(bytes(data))


def png() -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "PNG")
    return as_array(file.getvalue())


PLAIN = {
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "4:2:0": jpeg(subsampling=2),
    "low quality": jpeg(quality=10),
    "progressive": jpeg(progressive=True),
    "progressive 4:2:0": jpeg(progressive=True, subsampling=2, quality=40),
    "grey": jpeg(mode="L"),
    "stored as RGB": jpeg(keep_rgb=True),
    "restart markers": jpeg(restart_marker_blocks=2),
    "EXIF rotation": jpeg(exif=rotated_exif()),
    "long comment": jpeg(comment=b"x" * 60_000),
    "one pixel": jpeg(height=1, width=1),
    "large": jpeg(height=1200, width=1600),
}
BAD = {
    "truncated": jpeg()[:1500],
    "without its end": jpeg()[:-40],
    "header only": jpeg()[:620],
    "half a header": jpeg()[:100],
    "GIF": as_array(b"GIF89a" + bytes(100)),
    "PNG": png(),
    "CMYK": jpeg(mode="CMYK"),
    "two bytes": jpeg()[:2],
    "empty": as_array(b""),
    "text": as_array(b"not an image at all"),
    "too large": too_large(),
    "12 bits": with_frame(b"\xff\xc1\x00\x11\x0c"),
}
