"""What a run sees, as pictures in its folder: its views, and the masks that it pastes by."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import Source, open_source

if TYPE_CHECKING:
    from PIL.Image import Image

    from patchmill.training.config.settings import Config

log = logging.getLogger("patchmill")

VIEWS, MASKS = "views.png", "masks.png"
PICTURED, MASKED = 3, 8  # images whose views, and whose masks, are shown


def draw(config: Config, folder: Path) -> None:
    """As training sees its first images; no run fails for want of a picture."""
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
    count: int = PICTURED,
    seed: int = 0,
    masks: str | Path | None = None,
) -> None:
    """The views of the first images at `path`; masks.png beside it, if the recipe pastes by masks.

    `masks` is the file of masks that `loaders.build` takes.
    """
    from patchmill.loaders.preview.command import contact_sheet
    from patchmill.loaders.preview.masks import mask_sheet

    if any(group.paste for group in load_recipe(recipe).views):
        shown = mask_sheet(source, count=MASKED, seed=seed, masks=masks)
        _save(shown, path.with_name(MASKS))
    _save(contact_sheet(source, recipe, count=count, seed=seed, masks=masks), path)


def _save(image: Image, path: Path) -> None:
    """Under another name first: a run that is killed leaves no half of a picture."""
    half = path.with_name(f".part.{path.name}")
    try:
        image.save(half, optimize=True)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
