"""Pictures of a run's input: its views, and the masks of images whose foreground is pasted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.files.writing import atomic_path
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source, open_source

if TYPE_CHECKING:
    from PIL.Image import Image

    from patchmill.training.config.settings import Config

log = logging.getLogger("patchmill")

VIEWS, MASKS = "views.png", "masks.png"
VIEW_IMAGES, MASK_IMAGES = 3, 8  # images shown on each sheet


def draw(config: Config, folder: Path) -> None:
    """Draw the first images as training sees them; a failure is only logged."""
    if (folder / VIEWS).exists():
        return
    data = config.data
    try:
        source = open_source(data.train)
        views, seed = config.method.views, config.seed
        write_views(source, views, folder / VIEWS, seed=seed, masks=data.masks)
    except (MillError, OSError) as error:  # streams, for example, have no first images to show
        log.info("no picture of views: %s", error)


def write_views(
    source: str | Path | Source,
    recipe: Recipe | str | Path,
    path: Path,
    *,
    count: int = VIEW_IMAGES,
    seed: int = 0,
    masks: str | Path | None = None,
) -> None:
    """Draw the views of the first images to `path`, and masks.png next to it if the recipe pastes.

    `masks` is the mask file, as for loaders.build.
    """
    from patchmill.loaders.preview.command import contact_sheet
    from patchmill.loaders.preview.mask_sheet import mask_sheet

    if any(group.paste for group in load_recipe(recipe).views):
        sheet = mask_sheet(source, count=MASK_IMAGES, seed=seed, masks=masks)
        _save(sheet, path.with_name(MASKS))
    _save(contact_sheet(source, recipe, count=count, seed=seed, masks=masks), path)


def _save(image: Image, path: Path) -> None:
    # The temporary name ends in .png: PIL infers the format from it.
    with atomic_path(path, temporary=f".part.{path.name}") as partial:
        image.save(partial, optimize=True)
