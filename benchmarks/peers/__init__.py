"""The same views made with other people's libraries, as their users write it.

Each peer is a module that turns a recipe into what its library's own users would write for it, with
all augmentations on, and makes every view for real: float32, normalised, channels first.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any, Protocol, cast

from patchmill.loaders.errors import MillError
from patchmill.loaders.recipe import Recipe

NAMES = ("torchvision", "dali", "ffcv")

Batches = Generator[Any, None, None]
"""Endless batches of exactly `batch_size` images, reshuffled each time round; `close()` ends it."""


class Peer(Protocol):
    NOTE: str  # what it does differently from what the recipe says; "" where nothing is known

    def available(self) -> str | None:
        """None where the peer can run, else a sentence saying why it cannot."""
        ...

    def open(self, paths: list[str], recipe: Recipe, workers: int, batch_size: int) -> Batches:
        """Batches of views of the image files, made on `workers` CPU cores.

        A recipe that the library cannot make is a MillError.
        """
        ...


def load(name: str) -> Peer:
    if name not in NAMES:
        raise MillError(f"there is no peer {name!r}; there are: {', '.join(NAMES)}")
    return cast(Peer, importlib.import_module(f"{__name__}.{name}"))
