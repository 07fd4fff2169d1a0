"""A .beton of every kind of image and mask, and recipes that paste on every kind of background."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers_beton import encode
from PIL import Image

from patchmill.loaders.copypaste.mask_png import encode_mask
from patchmill.loaders.recipe import Blur, Colour, CopyPaste, Crop, Recipe, Views
from patchmill.loaders.sources.beton.writer import BetonWriter

KINDS = 6  # of masks, by the index modulo this


def plane(index: int) -> np.ndarray:
    """A square of foreground, of another size and share in every mask."""
    mask = np.zeros((9 + index, 14 + index % 5), np.uint8)
    mask[2 : 4 + index % 4, 1 : 5 + index % 8] = 255 if index % 2 else 187
    return mask


def stored_mask(index: int) -> bytes:
    """Plain PNGs of 4 and 8 bits, one with filters, a damaged one, a useless one, and none."""
    mask, kind = plane(index), index % KINDS
    if kind < 2:
        return encode_mask(mask, (4, 8)[kind])
    if kind == 2:
        stream = io.BytesIO()
        Image.fromarray(mask + np.arange(mask.shape[1], dtype=np.uint8)).save(stream, "PNG")
        return stream.getvalue()
    damaged = bytearray(encode_mask(mask))
    damaged[-20] ^= 255
    return (bytes(damaged), encode_mask(mask // 4), b"")[kind - 3]


def write_masked(path: Path, count: int) -> Path:
    """A beton with every kind of mask, a progressive JPEG and raw images."""
    with BetonWriter(path, count, ["a", "b", "c"], masks=True) as writer:
        for i in range(count):
            image = encode(i, "PNG") if i % 7 == 5 else encode(i, progressive=i == 2)
            writer.add(image, i % 3, stored_mask(i))
    return path


def pasting(*backgrounds: str) -> Recipe:
    """A group of views for each kind of background."""
    views = Views("", 2, 16, Crop((0.3, 1.0)), colour=Colour(0.4, 0.4, 0.2, 0.1), blur=Blur(0.5))
    groups = [
        replace(views, name=kind, paste=CopyPaste(p=0.4, background=kind, blur_sigma=2.0))
        for kind in backgrounds
    ]
    return Recipe((*groups, replace(views, name="plain", count=1, size=9)), name="pasting")
