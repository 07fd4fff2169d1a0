"""AlbumentationsX, with the resizing by area that it has for images that shrink.

The AGPL is its licence, and its import name is albumentations': it needs an environment of its own,
whose Python is named by `--peer-python albumentationsx=PATH`.
"""

from __future__ import annotations

from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.peers import Batches, albumentations
from patchmill.benchmarks.peers.albumentations import Dialect
from patchmill.loaders.recipe import Recipe

NOTE = "resizes by area where an image shrinks, whatever the recipe says"
DEVICES = albumentations.DEVICES
DECODER, ANTIALIASED = albumentations.DECODER, True

_DIALECT = Dialect("{}_range", "blur_range", "sigma_range", shrink="image")


def available() -> str | None:
    if machine.version("albumentationsx"):
        return None
    return (
        "AlbumentationsX needs an environment of its own, as it is imported by the name of "
        "albumentations: name its Python, --peer-python albumentationsx=PATH"
    )


def open(
    paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
) -> Batches:
    return albumentations.open_dialect(_DIALECT, paths, recipe, workers, batch_size)
