"""Published recipes, of dense patches and of copy-paste, and scenes with masks to try them on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from patchmill.loaders.prepare import make_data
from patchmill.loaders.prepare.options import Options
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source


def together(*presets: str) -> Recipe:
    """All of these recipes' views in one, for FFCV compiles for seconds for each loader."""
    groups = [
        replace(group, name=f"{recipe.name} {n} {group.name}")
        for n, recipe in enumerate(map(load_recipe, presets))
        for group in recipe.views
    ]
    return Recipe(tuple(groups), name="together")


def beton_of_scenes(path: Path, count: int, size: int) -> Path:
    """A beton of scenes with their masks."""
    source, options = (
        open_source(f"scenes(count={count}, size={size})"),
        Options(format="beton", seed=None),
    )
    make_data.make(source, path, options, workers=1)
    return path
