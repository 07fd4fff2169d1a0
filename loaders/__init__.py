"""High-throughput loaders of augmented views: `build` one from data and a recipe.

Importing this is quick: torch, Numba and the decoders are imported when a loader is built.
"""

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
