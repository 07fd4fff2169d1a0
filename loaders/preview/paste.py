"""Copy-paste of a sample: its mask, its background, and a composite of the whole image."""

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
from patchmill.loaders.preview.samples import Mask, decode_sample, open_mask_source
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources import Source

_SIDE = 256  # of the composite
_MAX_TRIES = 16  # substitutes of an unreadable background

FindBackground = Callable[[int], np.ndarray | None]  # by the id of the pasted sample
FindInputs = Callable[[int, np.ndarray, np.ndarray], "PasteInputs"]  # by id, image and rows


@dataclass(frozen=True)
class PasteInputs:
    """Mask and background image of a sample."""

    mask: Mask
    background: np.ndarray | None = None  # None unless a view is pasted on an image


def inputs_finder(
    source: Source,
    recipe: Recipe,
    background_data: backgrounds.BackgroundData | None,
    seed: int,
    epoch: int,
    masks: str | Path | None = None,
) -> FindInputs | None:
    """Return a function that finds masks and backgrounds as training does.

    Returns None if the recipe does not paste.
    """
    separate = backgrounds.open_backgrounds(background_data, recipe)
    if not any(group.paste for group in recipe.views):
        return None
    mask_source = open_mask_source(source, path=masks)

    def find_background(id: int) -> np.ndarray | None:
        if separate is not None:
            background = int(draw.background_id(np.uint64(seed), epoch, id, len(separate)))
            return _decode_or_substitute(separate, background, seed, epoch)
        candidates = backgrounds.candidates(seed, epoch, id, len(source))
        background = backgrounds.least_foreground(id, candidates, mask_source.foreground)
        return _decode_or_substitute(source, background, seed, epoch)

    return lambda id, image, rows: find_inputs(
        mask_source.get(id, image), rows, find_background, id
    )


def find_inputs(
    mask: Mask, rows: np.ndarray, find_background: FindBackground, id: int
) -> PasteInputs:
    """Inputs for a sample's rows [1, views]; turns pasting off in them if the mask is unusable."""
    if mask.usable is None:
        rows["paste"] = PASTE_NEVER
    return PasteInputs(mask, find_background(id) if (rows["paste"] == ON_IMAGE).any() else None)


def _decode_or_substitute(source: Source, id: int, seed: int, epoch: int) -> np.ndarray | None:
    """Decode a sample, or the substitute of a bad one, as in training."""
    candidate = id
    for attempt in range(_MAX_TRIES):
        image, _ = decode_sample(source, candidate)
        if image is not None:
            return image
        candidate = substitute(seed, epoch, id, attempt, len(source))
    return None


def composite(image: np.ndarray, rows: np.ndarray, inputs: PasteInputs) -> np.ndarray | None:
    """Render the whole image on its background, as in the first pasted view.

    Returns uint8 [256, 256, 3] for any aspect ratio of the image; None if no view is pasted.
    """
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
    views = render.render(
        [image],
        row[None],
        [Target("whole", 1, _SIDE, False, (0,) * 3, (1 / 255,) * 3)],
        masks=[inputs.mask.usable],
        backgrounds=[inputs.background],
    )
    return (views["whole"][0, 0] + 0.5).to(torch.uint8).permute(1, 2, 0).numpy()
