"""Files as they turn up in data sets: of all kinds, damaged, and with headers that lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def jpeg(
    seed: int = 0,
    height: int = 57,
    width: int = 83,
    mode: str = "RGB",
    noise: int = 60,
    **options: Any,
) -> bytes:
    return saved(picture(seed, height, width, noise).convert(mode), "JPEG", **options)


def picture(seed: int, height: int, width: int, most: int = 60) -> Image.Image:
    """A gradient with noise, so that chroma upsampling and rounding show."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, most, (height, width, 3))
    pixels = np.clip(np.stack([2 * x, 3 * y, x + y], -1) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def with_size(data: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its header."""
    at = data.find(b"\xff\xc0") + 5
    return data[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 4 :]


def odd() -> dict[str, bytes]:
    whole = jpeg(1)
    deep = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 30
    small = picture(2, 41, 33)
    return {
        "plain": whole,
        "4:4:4": jpeg(3, subsampling=0),
        "4:2:0": jpeg(4, subsampling=2),
        "progressive": jpeg(5, progressive=True),
        "grey": jpeg(6, mode="L"),
        "cmyk": jpeg(7, mode="CMYK"),
        "adobe rgb": jpeg(8, keep_rgb=True),
        "exif": jpeg(9, exif=rotated()),
        "restarts": jpeg(10, restart_marker_blocks=2),
        "pixel": jpeg(11, 1, 1),
        "garbage behind": whole + b"x" * 50,
        "much garbage behind": whole + b"x" * 10_000,
        "zeros behind": whole + bytes(300),
        "no end": whole[:-2],
        "png": saved(small, "PNG"),
        "alpha": saved(small.convert("RGBA"), "PNG"),
        "palette": saved(small.convert("P"), "PNG"),
        "gif": saved(small.convert("P"), "GIF"),
        "webp": saved(small, "WEBP"),
        "sixteen bits": saved(Image.fromarray(deep), "PNG"),
        "taller than it is": with_size(whole, 90, 83),
        "wider than it is": with_size(whole, 57, 120),
        "shorter than it is": with_size(whole, 33, 83),
        # ------------------------------------------------------------------------------------ bad
        "truncated": whole[: len(whole) // 2],
        "truncated, with an end": whole[: len(whole) // 2] + b"\xff\xd9",
        "only a header": whole[:620] + b"\xff\xd9",
        "empty": b"",
        "text": b"this is no picture",
        "larger than allowed": with_size(whole, 40_000, 40_000),
    }


def write_odd(folder: Path) -> Path:
    """Write every odd image into class folders, with the extension .jpg whatever it is."""
    for i, (name, data) in enumerate(odd().items()):
        path = folder / f"class_{i % 3}" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
