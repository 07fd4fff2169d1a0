"""Peers: the views of a recipe made with other libraries, as their users would write them.

Each peer is a module with the attributes of `Peer`. It applies all augmentations and delivers every
view normalised and channels first, as float32 on a CPU and in 16 bits on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any, Protocol, cast

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Crop, Grid, Recipe, Views

FORKING = ("torchvision", "torchvision-v2", "albumentations", "albumentationsx", "opencv")
NAMES = (*FORKING, "spdl", "torchvision-gpu", "kornia", "dali", "ffcv")
"""All peers; those whose workers are forked come first, before others start threads."""

Batches = Generator[Any, None, None]
"""Endless batches of exactly `batch_size` images, reshuffled every epoch; `close()` ends them."""


class Peer(Protocol):
    NOTE: str  # how its views deviate from every recipe; "" if they do not
    DEVICES: dict[str, str]  # cpu and cuda: why it is not used there; "" where it is
    DECODER: str  # of JPEGs
    ANTIALIASED: bool  # True if images that shrink are filtered first

    def available(self) -> str | None:
        """None if the peer is installed, else a sentence on how to install it."""
        ...

    def open(
        self, paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
    ) -> Batches:
        """Start making batches of views on `device` from image files, with `workers` CPU workers.

        Raises MillError if the library cannot make the recipe.
        """
        ...


def load(name: str) -> Peer:
    if name not in NAMES:
        raise MillError(f"there is no peer {name!r}; choose from: {', '.join(NAMES)}")
    return cast(Peer, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def note(name: str, recipe: Recipe) -> str:
    """Deviations of a peer's views from this recipe; "" if there are none."""
    overlaps = any(_crop(group).min_overlap > 0 for group in recipe.views)
    overlap_note = "does not draw crops again that overlap too little" if overlaps else ""
    return "; it ".join(filter(None, (load(name).NOTE, overlap_note)))


def check(name: str, recipe: Recipe) -> None:
    """Raise a MillError for operations that no peer supports."""
    for group in recipe.views:
        if group.paste or group.extra:
            what = "copy-paste" if group.paste else "operations on finished views"
            raise MillError(f"the {name} peer has no {what}, which view group {group.name!r} needs")


def _crop(group: Views) -> Crop:
    law = group.crop.of if isinstance(group.crop, Grid) else group.crop
    return law if isinstance(law, Crop) else Crop()
