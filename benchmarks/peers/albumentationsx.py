"""AlbumentationsX, with its area interpolation for downscaling.

It is licensed under the AGPL and is imported by the name albumentations, so it needs a separate
environment, whose Python is given by `--peer-python albumentationsx=PATH`.
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
