"""Small sources, recipes and loaders for the tests of the pipelines."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from patchmill import loaders
from patchmill.loaders.recipe import Blur, Colour, Crop, Recipe, Views

RECIPE = Recipe(
    (
        Views(
            "global",
            2,
            16,
            Crop((0.4, 1.0)),
            colour=Colour(0.4, 0.4, 0.2, 0.1),
            blur=Blur((1.0, 0.1)),
            solarise=(0.0, 0.5),
            interpolation="bicubic",
        ),
        Views("local", 3, 9, Crop((0.05, 0.4)), turns=True),
    ),
    name="small",
)
GLANCE = Recipe((Views("view", 1, 8),), name="glance")


class Pictures:
    """Encoded images in memory, of many shapes; `on_read` is called first and may raise."""

    def __init__(self, count: int, on_read: Callable[[int], Any] | None = None) -> None:
        self.name, self.fingerprint, self.classes = "pictures", f"pictures-{count}", ["a", "b", "c"]
        self.labels: np.ndarray | None = np.arange(count) % 3
        self.on_read = on_read
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> bytes:
        if self.on_read:
            self.on_read(index)
        return encoded(index)

    def where(self, index: int) -> str:
        return f"picture {index}"


class Masked(Pictures):
    """Pictures with masks: every fourth has none, and every fourth a useless one."""

    masked = True

    def mask(self, index: int) -> np.ndarray | None:
        if index % 4 == 1:
            return None
        height, width, _ = pixels(index).shape
        plane = np.zeros((height // 2 + 1, width // 2 + 1), np.uint8)
        if index % 4 != 2:
            plane[2 : height // 3, 1 : width // 3] = 255
        return plane


@functools.cache
def encoded(index: int) -> bytes:
    """Image `index` as a PNG; every third as a JPEG."""
    stream = io.BytesIO()
    picture = Image.fromarray(pixels(index))
    picture.save(stream, "JPEG" if index % 3 == 0 else "PNG")
    return stream.getvalue()


def pixels(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    height, width = 10 + 7 * index % 30, 10 + 11 * index % 40
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_loader(
    data: Any = 24, recipe: Recipe = GLANCE, batch_size: int = 4, **settings: Any
) -> Any:
    """`build` with two workers; a number stands for that many pictures.

    The pipeline is $TEST_PIPELINE (also in processes that a test starts), else threads.
    """
    data = Pictures(data) if isinstance(data, int) else data
    usual = {"workers": 2, "pipeline": os.environ.get("TEST_PIPELINE", "threads")}
    return loaders.build(data, recipe, batch_size, **{**usual, **settings})


def batch_pool(loader: Any) -> Any:
    """The pool that batch memory comes from, on the CPU."""
    return getattr(loader.pipeline, "_backend", loader.pipeline)._views._pool


def mill_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("patchmill")}
