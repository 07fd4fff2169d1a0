"""Images and masks of many kinds, from a seed; for machines without hypothesis."""

from __future__ import annotations

import numpy as np

KINDS = ("photo", "noise", "grey", "flat", "primary", "stripes")


def make_image(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A uint8 RGB image [height, width, 3]; kinds except photo and noise are extreme."""
    rng = np.random.default_rng(seed)
    if kind == "photo":
        return _photo(rng, height, width)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "grey":
        return np.repeat(rng.integers(0, 256, (height, width, 1), dtype=np.uint8), 3, 2)
    if kind == "flat":
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    if kind == "primary":
        return (255 * rng.integers(0, 2, (height, width, 3))).astype(np.uint8)
    if kind == "stripes":
        lines = 255 * (np.arange(height)[:, None] + np.arange(width)[None]) % 510
        return np.repeat(lines[..., None], 3, 2).astype(np.uint8)
    raise ValueError(kind)


def _photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft shading, fine grain, and discs and boxes with hard edges: the spectrum of a photo."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.empty((height, width, 3))
    for channel in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        image[..., channel] = 0.5 + 0.3 * a * np.sin(6 * x + 9 * b) + 0.3 * c * np.cos(5 * y)
    for _ in range(12):
        cy, cx, extent = rng.uniform(0, 1, 3)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < (0.2 * extent) ** 2
        box = (abs(y - cx) < 0.1 * extent) & (abs(x - cy) < 0.2 * extent)
        image[disc] = 0.7 * rng.uniform(0, 1, 3) + 0.3 * image[disc]
        image[box] = 0.7 * rng.uniform(0, 1, 3) + 0.3 * image[box]
    image += rng.normal(0, 0.03, (height, width, 1))
    return (255 * image).clip(0, 255).astype(np.uint8)


def make_mask(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A uint8 plane [height, width]: a disc with a soft edge, noise, or a hard checkerboard."""
    y, x = np.mgrid[:height, :width]
    if kind == "disc":
        distance = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.4)
        return (255 * np.clip(8 * (0.3 - distance) + 0.5, 0, 1)).astype(np.uint8)
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "checks":
        return (255 * ((y // 3 + x // 2) % 2)).astype(np.uint8)
    raise ValueError(kind)
