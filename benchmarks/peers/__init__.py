"""The same views made with other people's libraries, as their users write it.

Each peer is a module that turns a recipe into what its library's own users would write for it, with
all augmentations on, and makes every view for real: normalised and channels first, float32 on a CPU
and 16 bits wide on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any, Protocol, cast

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Crop, Grid, Recipe, Views

NAMES = ("torchvision", "torchvision-gpu", "kornia", "dali", "ffcv")

Batches = Generator[Any, None, None]
"""Endless batches of exactly `batch_size` images, reshuffled each time round; `close()` ends it."""


class Peer(Protocol):
    NOTE: str  # what it does differently from what the recipe says; "" where nothing is known
    DEVICES: dict[str, str]  # cpu and cuda: why nobody would use it there; "" where people do

    def available(self) -> str | None:
        """None where the peer can run, else a sentence saying why it cannot."""
        ...

    def open(
        self, paths: list[str], recipe: Recipe, workers: int, batch_size: int, device: str = "cpu"
    ) -> Batches:
        """Batches of views of the image files on `device`, made with the help of `workers` cores.

        A recipe that the library cannot make is a MillError.
        """
        ...


def load(name: str) -> Peer:
    if name not in NAMES:
        raise MillError(f"there is no peer {name!r}; there are: {', '.join(NAMES)}")
    return cast(Peer, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def note(name: str, recipe: Recipe) -> str:
    """What the peer does differently from what this recipe says."""
    overlaps = any(_crop(group).min_overlap > 0 for group in recipe.views)
    again = "does not draw crops again that overlap too little" if overlaps else ""
    return "; it ".join(filter(None, (load(name).NOTE, again)))


def _crop(group: Views) -> Crop:
    law = group.crop.of if isinstance(group.crop, Grid) else group.crop
    return law if isinstance(law, Crop) else Crop()
