"""Inputs of the copy-paste benchmark: images with masks and backgrounds, and decision rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from patchmill.benchmarks.lib.sample import Sample
from patchmill.kernels.views.decisions import ON_IMAGE, PASTE_NEVER, Target
from patchmill.loaders import saliency
from patchmill.loaders.copypaste import backgrounds, masks
from patchmill.loaders.copypaste.mask_png import decode_mask, encode_mask
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import Source

MAX_MASK_SIDE = 256  # pixels, as in `prepare masks`


@dataclass(frozen=True)
class PasteImages:
    """Images with their masks, and the background image of each."""

    encoded: list[bytes]
    images: list[np.ndarray]
    mask_pngs: list[bytes | None]  # None if there is no usable mask
    planes: list[np.ndarray | None]  # the decoded masks
    background_indices: list[int]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class RenderCase:
    """One recipe's views of all images; planes are None where nothing is pasted."""

    rows: np.ndarray
    targets: Sequence[Target]
    planes: list[np.ndarray | None]
    backgrounds: list[np.ndarray | None]  # None where the background is not an image


def load_images(source: Source, count: int) -> PasteImages:
    """Up to `count` images with the data's own masks, or RBD's, after a round trip through PNG."""
    sample = Sample(source, count)
    images = [decode(data) for data in sample.encoded]
    full_planes = _mask_planes(source, sample.ids, images)
    pngs = [None if p is None else encode_mask(_shrink(p), bits=4) for p in full_planes]
    planes = [None if png is None else decode_mask(png, lambda: source.name) for png in pngs]
    shares = [None if p is None else float((p >= masks.FOREGROUND_LEVEL).mean()) for p in planes]
    background_indices = [
        backgrounds.least_foreground(
            i, backgrounds.candidates(0, 0, i, len(images)), shares.__getitem__
        )
        for i in range(len(images))
    ]
    return PasteImages(sample.encoded, images, pngs, planes, background_indices)


def _mask_planes(
    source: Source, ids: Sequence[int], images: Sequence[np.ndarray]
) -> list[np.ndarray | None]:
    if stored := masks.open_masks(source):
        return [stored.plane(id) for id in ids]
    estimate = saliency.estimator("rbd")
    maps = [estimate(image, MAX_MASK_SIDE) for image in images]
    return [None if saliency_map.degenerate else saliency_map.plane for saliency_map in maps]


def _shrink(plane: np.ndarray) -> np.ndarray:
    scale = min(1.0, MAX_MASK_SIDE / max(plane.shape))
    height, width = (max(1, round(side * scale)) for side in plane.shape)
    return resize(plane[:, :, None], height, width)[:, :, 0]


def make_case(recipe: Recipe, images: PasteImages) -> RenderCase:
    """Draw the decisions for all views, as in a loader."""
    shapes = [image.shape[:2] for image in images.images]
    rows = draw.draw(recipe, 0, 0, np.arange(len(images)), shapes).rows
    for row, plane in zip(rows, images.planes, strict=True):
        if plane is None:
            row["paste"] = PASTE_NEVER
    pasted, on_image = ((rows["paste"] != PASTE_NEVER).any(1), (rows["paste"] == ON_IMAGE).any(1))
    planes = [p if use else None for p, use in zip(images.planes, pasted, strict=True)]
    background_images = [
        images.images[index] if use else None
        for index, use in zip(images.background_indices, on_image, strict=True)
    ]
    return RenderCase(rows, draw.targets(recipe), planes, background_images)
