"""What copy-paste does to a sample: its mask, and the whole image as the first such view has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchmill.kernels.views.decisions import (
    GREY_NEVER,
    NO_JITTER,
    ON_IMAGE,
    PASTE_NEVER,
    ROW,
    Target,
)
from patchmill.loaders.copypaste import backgrounds
from patchmill.loaders.order.permutation import substitute
from patchmill.loaders.plan import draw
from patchmill.loaders.preview.samples import Mask, image_of, masker
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source

_SIDE = 256  # of the square that the composite is rendered in
_TRIES = 16

Ground = Callable[[int], np.ndarray | None]  # the image behind a sample's pasted views
Paste = Callable[[int, np.ndarray, np.ndarray], "Pasting"]  # of a sample, its image and its rows


@dataclass(frozen=True)
class Pasting:
    """What a sample is pasted by, and on."""

    mask: Mask
    companion: np.ndarray | None = None  # the image behind it, where one is wanted


def paster(
    source: Source,
    recipe: Recipe,
    apart: backgrounds.BackgroundData | None,
    seed: int,
    epoch: int,
    masks: str | Path | None = None,
) -> Paste | None:
    """What pastes as training does; None where the recipe does not paste."""
    there = backgrounds.open_backgrounds(apart, recipe)
    if not any(group.paste for group in recipe.views):
        return None
    maker = masker(source, path=masks)

    def ground(id: int) -> np.ndarray | None:
        if there is not None:
            chosen = int(draw.background_id(np.uint64(seed), epoch, id, len(there)))
            return _readable(there, chosen, seed, epoch)
        drawn = backgrounds.candidates(seed, epoch, id, len(source))
        return _readable(source, backgrounds.least_foreground(id, drawn, maker.share), seed, epoch)

    return lambda id, image, rows: pasting(maker.look(id, image), rows, ground, id)


def pasting(mask: Mask, rows: np.ndarray, ground: Ground, id: int) -> Pasting:
    """For a sample's rows [1, views], which are not pasted where its mask cannot be used."""
    if mask.usable is None:
        rows["paste"] = PASTE_NEVER
    return Pasting(mask, ground(id) if (rows["paste"] == ON_IMAGE).any() else None)


def _readable(source: Source, wanted: int, seed: int, epoch: int) -> np.ndarray | None:
    """The image; of a bad one the substitute, as in training."""
    other = wanted
    for attempt in range(_TRIES):
        image, _ = image_of(source, other)
        if image is not None:
            return image
        other = substitute(seed, epoch, wanted, attempt, len(source))
    return None


def composite(image: np.ndarray, rows: np.ndarray, pasting: Pasting) -> np.ndarray | None:
    """uint8 [256, 256, 3], whatever the image's aspect; None where no view was pasted."""
    import torch

    from patchmill.kernels.views.cpu import render

    pasted = rows[rows["paste"] != PASTE_NEVER]
    if not len(pasted):
        return None
    row = np.zeros(1, ROW)
    row["box_h"], row["box_w"] = image.shape[:2]
    row["full_h"] = row["full_w"] = _SIDE
    row["order"], row["grey"] = NO_JITTER, GREY_NEVER
    for name in ("paste", "background", "mask_sigma", "background_y", "background_x"):
        row[name] = pasted[0][name]
    target = Target("whole", 1, _SIDE, False, (0, 0, 0), (1, 1, 1))
    planes, grounds = [pasting.mask.usable], [pasting.companion]
    made = render.render(
        [image], row[None], [target], dtype=torch.uint8, masks=planes, backgrounds=grounds
    )
    return made["whole"][0, 0].permute(1, 2, 0).numpy()
