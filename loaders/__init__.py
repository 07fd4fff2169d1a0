"""High-throughput loaders of augmented views: `build` one from data and a recipe.

Importing this package is fast: torch, Numba and the decoders are imported when a loader is built,
`operations` and `adapt` on first use.
"""

import importlib
from types import ModuleType

from patchmill.loaders import presets
from patchmill.loaders.build import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    CopyPaste,
    Crop,
    Grid,
    Recipe,
    Shift,
    Spread,
    Views,
    Window,
)
from patchmill.loaders.recipe_load import load_recipe

_LAZY = ("adapt", "operations")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"patchmill.loaders.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Blur",
    "Centre",
    "Colour",
    "CopyPaste",
    "Crop",
    "Grid",
    "MillError",
    "Recipe",
    "Shift",
    "Spread",
    "Views",
    "Window",
    "build",
    "load_recipe",
    "presets",
]
