"""Every view of every image, from one seed: `build` a loader from data and a recipe.

Importing this is quick: torch, Numba and the decoders are imported when a loader is built.
"""

from patchmill.loaders import presets
from patchmill.loaders.build import build
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import (
    Blur,
    Centre,
    Colour,
    Crop,
    Grid,
    Recipe,
    Shift,
    Spread,
    Views,
    Window,
)

__all__ = [
    "Blur",
    "Centre",
    "Colour",
    "Crop",
    "Grid",
    "MillError",
    "Recipe",
    "Shift",
    "Spread",
    "Views",
    "Window",
    "build",
    "presets",
]
